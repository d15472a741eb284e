"""Every benchmark of a device, one after the other: ``python -m benchmarks [--device …] [--output …]``."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks import report

ON_CPU = ("train_step", "evaluation", "data", "sweep", "precision", "preparation", "inat")
ON_CUDA = ("train_step", "evaluation", "data", "precision", "gpu", "inat")


def main() -> None:
    given = report.arguments(__doc__)
    device = given.device
    chosen = ON_CUDA if device.type == "cuda" else ON_CPU
    started, failed = time.perf_counter(), []
    for name in chosen:
        print(f"\n{name}", flush=True)
        where = ["--device", str(device), "--output", str(given.output)]
        command = [sys.executable, "-m", f"benchmarks.{name}", *where]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"\n{len(chosen)} benchmarks in {(time.perf_counter() - started) / 60:.1f} minutes")
    if failed:
        raise SystemExit(f"These failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
