"""``hml prepare``: from what an archive ships to what can be trained on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hml_core.errors import ConfigError
from hml_core.system import paths, streams


class File(click.Path):
    """A file; the empty string, such as that of an unset variable, is not the current folder."""

    KIND = "file"

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        try:
            paths.named(value, self.KIND)
        except ConfigError as error:
            blank = not os.fspath(value).strip()
            said = f"expected a {self.KIND}, got {value!r}." if blank else str(error)
            self.fail(said, parameter, context)
        text = os.fsdecode(value)
        if text == "-":
            said = f"expected a {self.KIND}, got '-': nothing is read from standard input or written to"
            self.fail(f"{said} standard output here ('./-' is a name).", parameter, context)
        if self.KIND == "file" and text.endswith(os.sep):
            self.fail(f"expected a file, got {text!r}, which names a folder.", parameter, context)
        # As a shell does with what stands in no quotes.
        return super().convert(os.path.expanduser(text), parameter, context)


class FileOrFolder(File):
    """A file, or a folder of some."""

    KIND = "file or folder"


class Folder(File):
    """A folder, given as :class:`File` says."""

    KIND = "folder"


MOST_SYNTHETIC = 10**6  # images: more than there are of any data set here


@click.group()
def prepare() -> None:
    """Make a data set ready to train on."""


def _data_root(help_text: str) -> Callable:
    kind = Folder()
    return click.option("--data-root", type=kind, required=True, help=help_text)


def _archive_options(help_text: str) -> Callable:
    """Options of every archive of image files."""
    options = (
        _data_root(help_text),
        click.option("--output", type=Folder(), help="[default: DATA_ROOT/prepared]"),
        click.option("--workers", type=int, help="Processes [default: one a core]."),
        click.option("--synthetic", type=click.IntRange(1, MOST_SYNTHETIC), metavar="IMAGES",
                     help="Make an archive of so many made-up images in DATA_ROOT first, to try it."),
    )  # fmt: skip

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# CIFAR ------------------------------------------------------------------------------------------


def _cifar(name: str) -> click.Command:
    @click.command(name, help=f"Download {name.upper()}, check it and unpack it.")
    @_data_root("Where the archive goes.")
    def command(data_root: Path) -> None:
        from data_prep import cifar as archive
        from hml_core.datasets import cifar

        try:
            folder = archive.download(name, data_root)
        except archive.DownloadError as error:
            raise click.ClickException(str(error)) from error
        train, test, names = cifar.read(name, str(data_root))
        _say(folder, {"training": len(train), "test": len(test)}, len(names))

    return command


for _name in ("cifar10", "cifar100"):
    prepare.add_command(_cifar(_name))


# A folder of small images -----------------------------------------------------------------------


@prepare.command()
@_data_root("The tree <root>/{train,test}/<class>/*.png or *.jpg.")
@click.option(
    "--pack-root",
    type=Folder(),
    help="Where the pack goes, of a tree that is read-only [default: beside the tree].",
)
def imagefolder(data_root: Path, pack_root: Path | None) -> None:
    """Pack a folder of small images of one size into <root>.packed.

    Training on the tree packs it, too. A pack can be given as --data-root in the tree's place.
    """
    import warnings

    import numpy as np

    from hml_core.datasets import imagefolder as images

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not read in")  # said below
        folder = images.pack(data_root, pack_root=pack_root)
    index = images.index_of(folder)
    number = {split: len(np.load(folder / f"{split}_targets.npy")) for split in images.SPLITS}
    _say(folder, {"training": number["train"], "test": number["test"]}, len(index["class_names"]))
    if index["left_out"]:
        streams.say(f"Not read: {', '.join(index['left_out'])}.")
    if pack_root is not None:
        streams.say(f"Train with: --dataset imagefolder --data-root {folder}")


# One's own photographs --------------------------------------------------------------------------


@prepare.command("folder")
@click.argument("source", type=Folder())
@click.option(
    "--data-root",
    type=Folder(),
    required=True,
    help="Where the prepared images go, outside of SOURCE; training takes the same.",
)
@click.option(
    "--csv",
    type=File(),
    help="Columns path and class, group (patient, lesion, sequence …), split; without a class: groups for "
    "the images of the folders.",
)
@click.option("--size", type=int, default=256, show_default=True, help="Shorter side, pixels.")
@click.option(
    "--crop/--no-crop",
    default=False,
    show_default=True,
    help="To the largest centred square.",
)
@click.option(
    "--square/--no-square",
    default=False,
    show_default=True,
    help="The whole image as a square; with --size 32 or so: images to train on in memory.",
)
@click.option(
    "--constancy",
    default="none",
    show_default=True,
    help="Colour constancy: shades_of_gray, gray_world or none.",
)
@click.option("--format", default="jpeg", show_default=True, help="jpeg or png.")
@click.option("--quality", type=int, default=95, show_default=True, help="Of JPEG.")
@click.option(
    "--fractions",
    type=float,
    nargs=3,
    default=(0.7, 0.15, 0.15),
    show_default=True,
    help="Of training, validation and test.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the split."
)
@click.option("--workers", type=int, help="Processes [default: one a core].")
def own_folder(
    source: Path,
    data_root: Path,
    csv: Path | None,
    fractions: tuple[float, ...],
    seed: int,
    workers: int | None,
    **given: Any,
) -> None:
    """Prepare one's own images: SOURCE/<class>/…, with or without train/ val/ test/ above, or a CSV.

    Resized copies of whatever decodes, a stratified split that keeps groups together, and a summary of
    what was found. Nothing in SOURCE is changed. Interrupted and started again, it goes on where it was;
    images that cannot be used are named in rejected.csv, those that are there twice in duplicates.csv.
    """
    from data_prep.folder import images, report
    from data_prep.folder import source as sources
    from data_prep.folder.prepare import prepare as prepare_all

    options = images.Options(**given)
    found = sources.read(source, csv)
    made = prepare_all(found, data_root, options, seed=seed, fractions=fractions, workers=workers)
    counts = made.manifest["split"].value_counts()
    number = {"training": "train", "validation": "validation", "test": "test"}
    images_of = {text: int(counts[split]) for text, split in number.items()}
    _say(made.folder, images_of, made.manifest["class"].nunique())
    _say_what_went_along(made, found.synthetic)
    for line in report.lines(made.summary):
        streams.say(line)
    streams.say(report.how_to_train(made.summary, options.crop or options.square, str(data_root)))


# ISIC -------------------------------------------------------------------------------------------


def _isic(name: str) -> click.Command:
    options = [
        click.option("--constancy", default="shades_of_gray", show_default=True,
                     help="Colour constancy: shades_of_gray, gray_world or none."),
        click.option("--p", type=float, default=6.0, show_default=True, help="Of shades of gray, ≥ 1."),
        click.option("--segments", type=int, default=1, show_default=True,
                     help="Light of the whole image (1), of a 2×2 (2) or of a 4×4 grid (4)."),
        click.option("--crop/--no-crop", default=True, show_default=True,
                     help="To the largest centred square."),
        click.option("--size", type=int, default=300, show_default=True, help="Shorter side, pixels."),
        click.option("--format", default="jpeg", show_default=True, help="jpeg or png."),
        click.option("--quality", type=int, default=95, show_default=True, help="Of JPEG."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                     help="Of the 80/10/10 split by lesion."),
        click.option("--split-csv", type=File(),
                     help="A split of one's own: columns id and split (train, validation, test)."),
    ]  # fmt: skip

    def command(data_root: Path, synthetic: int | None, output: Path | None, **given: Any) -> None:
        from data_prep.isic import archive, images
        from data_prep.isic.prepare import prepare as prepare_all
        from data_prep.isic.synthetic import make
        from data_prep.synthetic import written

        fields = {field.name for field in dataclasses.fields(images.Options)}
        chosen = images.Options(**{key: value for key, value in given.items() if key in fields})
        rest = {key: value for key, value in given.items() if key not in fields}
        if synthetic is not None:
            with written(data_root):
                make(name, data_root, synthetic, official=synthetic // 6)
        found = archive.read(name, data_root)
        output = data_root / "prepared" if output is None else output
        made = prepare_all(found, output, chosen, **rest)
        _report(made, found.synthetic)

    for option in reversed(options):
        command = option(command)
    command = _archive_options("Folder with the challenge's files.")(command)
    return click.command(name, help=_ISIC_HELP.format(year=name[-4:]))(command)


_ISIC_HELP = """Prepare the images of ISIC {year}: colour constancy, crop, resize, splits by lesion.

Nothing is downloaded: without the challenge's files, the message says which ones go where. Interrupted
and started again, it goes on where it was; images that do not decode are named in rejected.csv."""

for _name in ("isic2018", "isic2019"):
    prepare.add_command(_isic(_name))


def _report(made: Any, synthetic: bool) -> None:
    from data_prep.isic.report import leak, official

    counts = made.manifest["split"].value_counts()
    number = {"training": "train", "validation": "validation", "test": "test"}
    classes = made.manifest["class"].nunique()
    _say(made.folder, {text: int(counts[split]) for text, split in number.items()}, classes)
    _say_what_went_along(made, synthetic)
    if made.official:
        streams.say(official({"official": made.official}))
    for note in made.notes:
        streams.say(note)
    streams.say(leak({"leak": made.leak}))


# iNaturalist ------------------------------------------------------------------------------------


@prepare.command()
@_archive_options("Folder with the official files.")
@click.option(
    "--size",
    type=int,
    default=256,
    show_default=True,
    help="Shorter side, pixels; 0 copies the files as they are.",
)
@click.option("--quality", type=int, default=87, show_default=True, help="Of JPEG.")
@click.option("--verify", is_flag=True, help="Compare the tarball with its published MD5 first.")
def inat2018(
    data_root: Path,
    output: Path | None,
    size: int,
    quality: int,
    workers: int | None,
    synthetic: int | None,
    verify: bool,
) -> None:  # fmt: skip
    """Prepare the images of iNaturalist 2018: check, resize, list.

    Nothing is downloaded: without the official files, the message says which ones go where. Interrupted
    and started again, it goes on where it was; images that do not decode are named in rejected.csv.
    """
    from data_prep.inaturalist import archive, images, tarball
    from data_prep.inaturalist.prepare import prepare as prepare_all
    from data_prep.inaturalist.synthetic import make
    from data_prep.synthetic import written

    options = images.Options(size=size, quality=quality)
    if synthetic is not None:
        with written(data_root):
            make(data_root, synthetic)
    found = archive.read(data_root)
    if verify:
        tarball.verify(archive.require_tarball(found, data_root))
    output = data_root / "prepared" if output is None else output
    made = prepare_all(found, output, options, workers=workers)
    counts = made.manifest["split"].value_counts()
    number = {"training": int(counts["train"]), "validation": int(counts["validation"])}
    _say(made.folder, number, len(made.categories))
    streams.say(f"{made.size / 1e9:.2f} GB")
    _say_what_went_along(made, found.synthetic)


def _say_what_went_along(made: Any, synthetic: bool) -> None:
    """Made-up images, what an earlier call had done, what was rejected."""
    from data_prep.parallel import why
    from hml_core.datasets import trees

    if synthetic:
        streams.say("SYNTHETIC images: nothing learnt from them is a result.")
    if made.done_before:
        streams.say(f"{made.done_before} of the images had been prepared before.")
    if len(made.rejected):
        shown = ", ".join(made.rejected["file"].head(3))
        rest = " …" if len(made.rejected) > 3 else ""
        streams.say(
            f"{len(made.rejected)} rejected ({why(made.rejected)}), see "
            f"{trees.shown(made.folder / 'rejected.csv')}: {shown}{rest}"
        )


def _say(folder: Path, images: dict[str, int], classes: int) -> None:
    from hml_core.datasets import trees

    texts = [f"{number} {split}" for split, number in images.items()]
    listed = f"{', '.join(texts[:-1])} and {texts[-1]}"
    streams.say(f"{trees.shown(folder)}: {listed} images, {classes} classes")
