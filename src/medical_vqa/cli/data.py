"""Commands for datasets: prepare and audit."""

from __future__ import annotations

from pathlib import Path

import click

from medical_vqa.cli.options import NamedPath, pairs
from medical_vqa.cli.terminal import echo


@click.command()
@click.argument("dataset", metavar="NAME")
@click.option(
    "--source",
    help="Folder of the published files, or `hub` to download them.  [default: the shipped sample, or the hub]",
)
@click.option(
    "--root",
    type=NamedPath(path_type=Path),
    help="Folder of prepared datasets.  [default: ~/.cache/medical-vqa/data]",
)
@click.option("--partial", is_flag=True, help="Continue although part of the dataset is missing.")
@click.option("--skip-unreadable", is_flag=True, help="Leave out the rows whose image cannot be read, and count them.")
@click.option("--as", "name", metavar="NAME", help="Prepare it under another name (for `folder`).")
@click.option("--columns", metavar="FIELD=COLUMN,...", help="Columns of a `table`, e.g. image=img,question=q,answer=a.")
@click.option("--resplit", type=click.Choice(["clean"]), help="Also write NAME-clean, whose splits share no image.")
def prepare(
    dataset: str,
    source: str | None,
    root: Path | None,
    partial: bool,
    skip_unreadable: bool,
    name: str | None,
    columns: str | None,
    resplit: str | None,
) -> None:
    """Check a dataset, write it in the prepared layout, and count its rows.

    NAME is slake-mini (the shipped sample), a published dataset (slake, vqa-rad, vqa-med-2019, path-vqa, kvasir-vqa,
    pmc-vqa, rad-restruct, omnimedvqa, medxpertqa-mm, medframeqa, chestx-ray14 ...), or the layout of your own
    questions and images (folder, table, llava-json, sharegpt, messages, coco-vqa, vlmevalkit).
    """
    from medical_vqa import api
    from medical_vqa.data.prepared.summary import manifest_table, shared_images
    from medical_vqa.progress import console, counts_table

    fields = pairs(tuple(columns.split(",")), "--columns") if columns else None
    prepared = api.prepare(
        dataset,
        source=source,
        root=root,
        partial=partial,
        skip_unreadable=skip_unreadable,
        name=name,
        columns=fields,
        resplit=resplit,
    )
    manifest, terminal = prepared.manifest, console()
    rows = {split: prepared.examples(split) for split in prepared.splits}
    table = [
        [line.fact, line.value, *(f"{line.counts.get(split, 0):,}" for split in rows)]
        for line in manifest_table(manifest, rows)
    ]
    terminal.print(counts_table(manifest.title, ["fact", "value", *rows], table))
    missing = [f"missing: {phrase}" for phrase in manifest.missing]
    for note in [*manifest.notes, *shared_images(manifest, rows), *missing]:
        terminal.print(f"note: {note}", highlight=False)
    terminal.print(
        f"prepared in {prepared.folder} (manifest {manifest.digest[:12]}); license: {manifest.license}", highlight=False
    )


@click.command()
@click.argument("dataset")
@click.option("--root", type=NamedPath(path_type=Path), help="Folder of prepared datasets.")
@click.option("--out", type=NamedPath(path_type=Path), help="HTML page to write.  [default: audit-DATASET.html]")
@click.option("--quick", is_flag=True, help="Compare files only; do not search for near-duplicates.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def audit(dataset: str, root: Path | None, out: Path | None, quick: bool, as_json: bool) -> None:
    """Search a prepared dataset for leaks: images shared between splits, near-duplicates, contradictions.

    The findings are kept with the dataset; `score` and `report` then also score without the leaked rows.
    """
    from medical_vqa import api
    from medical_vqa.api.arguments import as_dataset
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.evaluation.reporting.audit_report import audit_text

    page = out or Path(f"audit-{Path(dataset).name}.html")
    prepared = PreparedDataset.open(*as_dataset(dataset, root))
    findings = api.audit(prepared, page=page, compare_images=not quick)
    if not quick and prepared.audit is None:
        message = "cannot be written, so the findings are not kept there: `score` and `report` will not know of them"
        echo(f"{prepared.folder}: {message}", err=True)
    click.echo(findings.model_dump_json(indent=1) if as_json else audit_text(findings))
    click.echo(f"page: {page}", err=as_json)


@click.command()
@click.argument("dataset")
@click.option(
    "--to", "layout", required=True, metavar="LAYOUT", help="llava-json, sharegpt, messages, coco-vqa, csv ..."
)
@click.option("--out", required=True, type=NamedPath(path_type=Path), help="Folder to write into.")
@click.option("--root", type=NamedPath(path_type=Path), help="Folder of prepared datasets.")
def convert(dataset: str, layout: str, out: Path, root: Path | None) -> None:
    """Write a prepared dataset in the layout of another program.

    Layouts: llava-json, sharegpt, messages, coco-vqa, csv, hub-parquet, vlmevalkit, lmms-eval.
    """
    from medical_vqa import api

    for path in api.convert(dataset, layout, out, root=root):
        click.echo(path)
