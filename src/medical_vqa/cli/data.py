"""Commands for datasets: prepare and audit."""

from __future__ import annotations

from pathlib import Path

import click

from medical_vqa.cli.options import prepared_root
from medical_vqa.cli.terminal import console


@click.command()
@click.argument("name")
@click.option(
    "--source",
    help="Folder that holds the published files, or `hub` to download them.  [default: the shipped sample, or the hub]",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Where to lay it out.  [default: ~/.cache/medical-vqa/data]"
)
@click.option("--partial", is_flag=True, help="Go on although part of the dataset is missing.")
@click.option("--as", "under", metavar="NAME", help="Prepare it under another name (for `folder`).")
def prepare(name: str, source: str | None, root: Path | None, partial: bool, under: str | None) -> None:
    """Check a dataset, lay it out, and count what is in it.

    NAME is slake, vqa-rad, slake-mini (the shipped sample), or folder (your own questions and images).
    """
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.data.prepared.summary import manifest_table, shared_images
    from medical_vqa.pipelines import prepare as prepare_stage
    from medical_vqa.progress import counts_table, stages

    terminal, place = console(), prepared_root(root)
    folder = None if source in (None, "hub") else Path(str(source))
    with stages(console(stderr=True)) as progress:
        manifest = prepare_stage.prepare_dataset(
            name, source=folder, root=place, partial=partial, under=under, progress=progress, download=source == "hub"
        )
    prepared = PreparedDataset.open(manifest.name, place)
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
@click.option("--root", type=click.Path(path_type=Path), help="Where it was prepared.")
@click.option("--out", type=click.Path(path_type=Path), help="HTML page to write.  [default: audit-DATASET.html]")
@click.option("--quick", is_flag=True, help="Compare files only; do not look for near-duplicates.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def audit(dataset: str, root: Path | None, out: Path | None, quick: bool, as_json: bool) -> None:
    """Look for leaks in a prepared dataset: images shared between splits and languages, twins, contradictions.

    What is found is kept beside the dataset; `score` and `report` then also score without the leaked rows.
    """
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.evaluation.reporting.audit_report import audit_text
    from medical_vqa.pipelines import audit as audit_stage
    from medical_vqa.progress import counting

    prepared = PreparedDataset.open(dataset, prepared_root(root))
    with counting(console(stderr=True), f"looking at {dataset}", "images") as progress:
        found = audit_stage.audit(prepared, compare_images=not quick, progress=progress)
    page = audit_stage.audit_page(found, prepared, out or Path(f"audit-{dataset}.html"))
    click.echo(found.model_dump_json(indent=1) if as_json else audit_text(found))
    click.echo(f"page: {page}", err=as_json)
