"""TLS of a sweep on Slurm: made for it alone, and what the script of a job says of it."""

from __future__ import annotations

import copy
import os
import shlex
from pathlib import Path
from typing import Any, NamedTuple


def make(folder: Path) -> tuple[Any, str]:
    """Security of a cluster whose key and certificate are made now, and the certificate as text.

    They lie in ``folder``, as files of their owner's alone; the text is what was made, whatever lies there
    later.
    """
    from distributed import Security

    made = Security.temporary()
    contents = {"ca": made.tls_ca_file, "cert": made.tls_worker_cert, "key": made.tls_worker_key}
    paths = {}
    for name, content in contents.items():
        path = folder / f"{name}.pem"
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
            stream.write(content)
        paths[name] = str(path)
    roles = {
        f"tls_{role}_{name}": paths[name]
        for role in ("client", "scheduler", "worker")
        for name in ("cert", "key")
    }
    security = Security(require_encryption=True, tls_ca_file=paths["ca"], **roles)
    return security, contents["ca"]


class Believed(NamedTuple):
    """The certificate that a job's worker asks others for, and where its script puts it for that."""

    certificate: str
    place: str  # as a shell reads it

    def put_into(self, script: str, command: str, named: str) -> str:
        """The script with the certificate itself, in the place of the file that ``command`` names."""
        lines = [
            f"cat > {self.place} << 'CERTIFICATE' || exit 1",
            *self.certificate.splitlines(),
            "CERTIFICATE",
            command.replace(f"--tls-ca-file {named}", f"--tls-ca-file {self.place}"),
        ]
        return script.replace(command, "\n".join(lines))


def for_shell(security: Any) -> Any:
    """The same security as a job's script has it: a shell reads the paths there."""
    quoted = copy.copy(security)
    for name in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        setattr(quoted, name, shlex.quote(getattr(security, name)))
    return quoted
