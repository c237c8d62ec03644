"""Score the model on the demo's held-out questions, by source.

    python score.py --rows ../demo/test.parquet

Writes scores.json: percent of exact answers to the last question of each row.
"""

from pathlib import Path

import click
import torch
from answering import answers, exact_match, last_prompt
from datasets import Dataset
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from interlace.system.outputs import write_json


@click.command()
@click.option("--model", "folder", default="model", show_default=True, help="The checkpoint.")
@click.option("--rows", default="../demo/test.parquet", show_default=True, help="The questions.")
@click.option("--out", default="scores.json", show_default=True, help="The percentages.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
def main(folder: str, rows: str, out: str, threads: int) -> None:
    """Answer, compare and write."""
    torch.set_num_threads(threads)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    questions = Dataset.from_parquet(rows)
    prompts = [last_prompt(processor, row) for row in tqdm(questions, desc="prompts", unit="row")]
    scores = exact_match(questions, answers(model, processor, prompts, batch=32))
    for source, score in scores.items():
        click.echo(f"{source:18} {score:5.1f}")
    write_json(Path(out), {source: round(score, 1) for source, score in scores.items()})


if __name__ == "__main__":
    main()
