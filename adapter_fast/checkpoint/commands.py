"""The click commands convert, push and pull: a saved adapter in AdapterHub's format, and on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ..common.errors import UserError, WriteError, first_line
from .adapterhub.names import CONFIG_FILE
from .adapterhub.names import FILES as ADAPTER_FILES  # AdapterHub's, ours among them
from .card import CARD_FILE

FILES = (*ADAPTER_FILES, CARD_FILE)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(("adapterhub", "adapter_fast")), help="The format of OUTPUT.")
@click.option("--layer-norms/--no-layer-norms", default=True, help="AdapterHub's files have no place for LayerNorms.")
@click.option("--head/--no-head", default=True, show_default=True, help="Convert the head saved with the adapter too.")
@click.option("--model-class", help="Of the base model, as BertForSequenceClassification: for a head to AdapterHub.")
@click.option("--layers", type=int, help="Of the base model: for an adapter that leaves layers out, to AdapterHub.")
def convert(
    source: Path, output: Path, to: str, layer_norms: bool, head: bool, model_class: str | None, layers: int | None
) -> None:
    """Write the adapter in the directory SOURCE to the directory OUTPUT in the other format; no model is needed."""
    from . import convert_adapter

    try:
        convert_adapter(source, output, to, layer_norms=layer_norms, head=head, model_class=model_class, layers=layers)
    except WriteError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    click.echo(f"{output} holds the adapter of {source} in the format {to}")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("repository")
@click.option("--private", is_flag=True, help="Where the repository is new.")
def push(directory: Path, repository: str, private: bool) -> None:
    """Upload the saved adapter in DIRECTORY to REPOSITORY (owner/name), which is made where it is new."""
    from huggingface_hub import create_repo, upload_folder

    files = _adapter_files(directory)
    with _hub_errors(repository):
        create_repo(repository, private=private, exist_ok=True)
        upload_folder(repo_id=repository, folder_path=directory, allow_patterns=[*files, CARD_FILE])
    click.echo(f"{repository} holds the adapter of {directory}: {', '.join(files)}")


@click.command()
@click.argument("repository")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--revision", help="A branch, tag or commit.")
def pull(repository: str, directory: Path, revision: str | None) -> None:
    """Download the adapter in REPOSITORY (owner/name), ours or AdapterHub's, to DIRECTORY, for load_adapters."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    from ..common.directories import replace_directory
    from ..common.files import writing

    with _hub_errors(repository), writing(Path(HF_HUB_CACHE)):
        found = Path(snapshot_download(repository, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    files = _adapter_files(found, repository)
    try:
        replace_directory(directory, {file: (found / file).read_bytes() for file in files}, FILES)
    except ValueError as error:
        raise UserError(str(error)) from error
    click.echo(f"{directory} holds the adapter of {repository}: {', '.join(files)}")


def _adapter_files(directory: Path, name: str = "") -> list[str]:
    """An adapter's files in a directory; UserError where it is none."""
    from .record import read_config

    files = [file for file in ADAPTER_FILES if (directory / file).is_file()]
    if CONFIG_FILE in files:
        try:
            read_config(directory / CONFIG_FILE)
        except ValueError as error:
            raise UserError(str(error)) from error
    if CONFIG_FILE not in files or len(files) < 2:
        raise UserError(f"no saved adapter in {name or directory}: expected {CONFIG_FILE} and its weights")
    return files


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """What the hub's client raises, as one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except WriteError:
        raise
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise UserError(f"{repository}: {first_line(error)}") from error
