"""The campaign's command: makes the tries of a seed, prints and writes its table."""

from __future__ import annotations

from pathlib import Path

import click
from campaign import table, tries
from campaign.bench import Bench
from campaign.project import ROOT
from tqdm import tqdm

FOLDER = ROOT / ".scratch/campaign"


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--count", type=int, help="Number of tries, as many of each kind; default: all.")
@click.option("--kind", multiple=True, help="Only these kinds.")
@click.option("--target", multiple=True, help="Only these stages or files.")
@click.option("--only", multiple=True, help="Only the tries of these names; keep their folders.")
@click.option("--jobs", default=2, show_default=True, help="Tries side by side.")
@click.option("--again", is_flag=True, help="Forget the results that this seed has so far.")
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, help="Working folder.")
@click.option("--page", type=click.Path(path_type=Path), help="Write the table to this page.")
def main(
    seed: int,
    count: int | None,
    kind: tuple[str, ...],
    target: tuple[str, ...],
    only: tuple[str, ...],
    jobs: int,
    again: bool,
    folder: Path,
    page: Path | None,
) -> None:
    """Break the pipeline on purpose; print what happened, by kind.

    Results are kept as they come. A campaign that was cut off resumes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / f"results-{seed}.jsonl"
    if again:
        results.unlink(missing_ok=True)
    listed = [
        one
        for one in tries.chosen(tries.all_tries(seed), count)
        if (not kind or one.kind in kind)
        and (not target or one.target in target)
        and (not only or one.name in only)
    ]
    names = {one.name for one in listed}
    rows = [] if only else [row for row in tries.read_rows(results) if row["name"] in names]
    done = {row["name"] for row in rows}
    pending = [one for one in listed if one.name not in done]
    if pending:
        bench = Bench(folder, keep=bool(only))
        try:
            ongoing = tries.run(bench, pending, None if only else results, jobs)
            for row in tqdm(ongoing, "campaign", total=len(pending), unit="try", smoothing=0):
                rows.append(row)
                if only or row["outcome"] in table.FAULTS:
                    tqdm.write(f"{row['outcome']}: {row['name']}: {row['reason']}")
        except KeyboardInterrupt:
            click.echo("cut off: the same command resumes", err=True)
        finally:
            bench.close()
    click.echo("\n".join(table.lines(rows)))
    if page:
        page.write_text(table.page(rows, seed, complete=len(rows) == len(listed)))
    raise SystemExit(1 if table.faults(rows) else 0)
