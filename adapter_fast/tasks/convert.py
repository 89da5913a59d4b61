"""The click command convert: an adapter's files from AdapterHub's format to ours or back; torch is imported late."""

from __future__ import annotations

from pathlib import Path

import click

from ..common.errors import UserError


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
    from ..checkpoint import convert_adapter

    try:
        convert_adapter(source, output, to, layer_norms=layer_norms, head=head, model_class=model_class, layers=layers)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    click.echo(f"{output} holds the adapter of {source} in the format {to}")
