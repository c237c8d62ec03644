from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nodes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from chat_server import chat_server
from evaluation.published_rows import write_parquet
from interruptions import damage, interrupt
from models import row, rows
from transformers import GenerationMixin

from interlace.checkpoint.checkpoint import Checkpoint
from interlace.errors import InputError
from interlace.evaluation.run.evaluate import evaluate_checkpoint
from interlace.evaluation.run.isolation import isolated
from interlace.evaluation.run.journal import Journal
from interlace.evaluation.scores.answers import read_answers
from interlace.evaluation.scores.result import Reasoning
from interlace.model.chat import chat_messages, encode_messages, encode_training
from interlace.model.row_losses import last_answer, row_losses
from interlace.model.sampling import PUBLISHED
from interlace.params.evaluating import Evaluate, Judge
from interlace.scores.rate import rate

Write = Callable[..., Path]


@pytest.fixture
def params(write_rows: Write, tmp_path: Path) -> Evaluate:
    """Two published benchmarks, one of which needs a judge, two held-out sources, one judged."""
    for name in ("MIABench", "HRBench4K"):
        write_parquet(name, tmp_path / f"data/{name}.parquet", 4)
    return Evaluate(
        benchmarks=("MIA-Bench", "HRBench4K"),
        data=str(tmp_path / "data"),
        heldout=str(write_rows(rows(7, source="b") + rows(4, source="a"))),
        judged=(str(write_rows(rows(4, source="open"), "open.parquet")),),
        batch_size=4,
        max_new_tokens=3,
    )


def test_scores_and_answers_are_reproducible(
    checkpoint: Checkpoint, params: Evaluate, tmp_path: Path
) -> None:
    files = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    first, second = (
        evaluate_checkpoint(checkpoint, params=params, model_name="dense", answers_file=file)
        for file in files
    )
    assert first == second and files[0].read_bytes() == files[1].read_bytes()
    counts = {name: score.n for name, score in first.scores.items()}
    assert counts == {"HRBench4K": 4, "a": 4, "b": 7}
    assert Counter(answer.benchmark for answer in read_answers(files[0])) == counts
    assert first.skipped.keys() == {"MIABench", "open"}
    assert all("no judge is configured" in reason for reason in first.skipped.values())
    assert "names no option is wrong" in first.notes["HRBench4K"]
    assert (first.model, first.device, first.dtype) == ("dense", "cpu", "float32")
    assert set(first.versions) == {"torch", "transformers", "lmms_eval"}
    content = json.dumps(first.as_json())
    assert str(tmp_path) not in content and str(checkpoint.folder) not in content


def test_sampled_answers_repeat_with_their_seed_and_the_result_says_how_they_came_about(
    checkpoint: Checkpoint, write_rows: Write, tmp_path: Path
) -> None:
    heldout = str(write_rows(rows(3, source="b")))
    options = {"benchmarks": ("POPE-F1",), "heldout": heldout, "max_new_tokens": 4}
    sampled = Evaluate(data=str(tmp_path / "data"), answers="reasoning", **options)
    write_parquet("POPE", tmp_path / "data/POPE-F1.parquet")

    def answers(name: str, **changes: Any) -> tuple[Any, dict[str, list[str]]]:
        path, texts = tmp_path / f"{name}.parquet", {}
        params = sampled.model_copy(update=changes)
        result = evaluate_checkpoint(
            checkpoint, params=params, model_name="dense", answers_file=path
        )
        for answer in read_answers(path):
            texts.setdefault(answer.benchmark, []).append(answer.answer)
        return result, texts

    first, texts = answers("first")
    assert answers("again") == (first, texts)
    assert answers("one by one", batch_size=1)[1] == texts
    assert first.reasoning == Reasoning(max_new_tokens=4, seed=0, **PUBLISHED.as_settings())
    _, other = answers("other", seed=1)
    assert other["POPE-F1"] != texts["POPE-F1"] and other["b"] == texts["b"]
    direct, greedy = answers("direct", answers="direct")
    assert direct.reasoning is None and greedy["b"] == texts["b"]


def test_the_loss_is_that_of_each_row_s_last_answer(
    checkpoint: Checkpoint, params: Evaluate, tmp_path: Path
) -> None:
    result = evaluate_checkpoint(
        checkpoint, params=params, model_name="m", answers_file=tmp_path / "a"
    )
    model, processor = checkpoint.open_model(dtype="float32"), checkpoint.open_processor()
    by_row = {
        (answer.benchmark, answer.sample_id): answer for answer in read_answers(tmp_path / "a")
    }
    totals = {}
    for source, n in (("a", 4), ("b", 7)):
        answers = [answer for (name, _), answer in sorted(by_row.items()) if name == source]
        encoded = [last_answer(encode_training(processor, row)) for row in rows(n)]
        losses = [row_losses(model, [example])[0] for example in encoded]
        assert [answer.loss for answer in answers] == pytest.approx([x.loss for x in losses])
        assert [tuple(answer.choices or ()) for answer in answers] == [x.choices for x in losses]
        totals[source] = sum(x.loss for x in losses), sum(len(x.tokens) for x in losses)
        assert result.losses[source].loss == pytest.approx(totals[source][0] / totals[source][1])
        assert result.losses[source].tokens == totals[source][1]
    nats, tokens = map(sum, zip(*totals.values(), strict=True))
    assert result.loss is not None and result.loss.loss == pytest.approx(nats / tokens)
    assert result.loss.tokens == tokens
    assert all(by_row[key].loss is None for key in by_row if key[0] == "HRBench4K")
    assert result.losses.keys() == {"a", "b"}


def test_next_tokens_are_scored_without_generating(
    checkpoint: Checkpoint, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = checkpoint.open_model(dtype="float32"), checkpoint.open_processor()
    examples = rows(9, source="a")
    for example in examples[::2]:  # begin with the model's own choice
        answered = last_answer(encode_training(processor, example))
        choice = row_losses(model, [answered])[0].choices[0]
        example["texts"][-1]["assistant"] = processor.tokenizer.decode([choice]) + "7"
    path = write_rows(examples)
    params = Evaluate(heldout=str(path), batch_size=4, heldout_metric="next-token")
    monkeypatch.setattr(GenerationMixin, "generate", None)
    result = evaluate_checkpoint(
        checkpoint, params=params, model_name="m", answers_file=tmp_path / "a"
    )
    encoded = [last_answer(encode_training(processor, example)) for example in examples]
    losses = row_losses(model, encoded)
    correct, tokens = sum(x.correct for x in losses), sum(len(x.tokens) for x in losses)
    assert 0 < correct < tokens
    assert result.scores["a"].score == pytest.approx(100 * correct / tokens)
    assert result.scores["a"].n == 9
    expected = rate([100.0 * x.correct for x in losses], [len(x.tokens) for x in losses])
    assert result.scores["a"].standard_error == pytest.approx(expected.standard_error)
    answers = read_answers(tmp_path / "a")
    assert [answer.weight for answer in answers] == [len(x.tokens) for x in losses]
    assert {answer.answer for answer in answers} == {""}
    limited = evaluate_checkpoint(
        checkpoint, params=params.model_copy(update={"limit": 2}), model_name="m"
    )
    assert limited.scores["a"].n == 2


def test_a_template_that_rewrites_turns_leaves_answers_without_a_loss(
    checkpoint: Checkpoint, write_rows: Write, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint.folder, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>{% endif %}")
    rewriting = Checkpoint(folder)
    params = Evaluate(heldout=str(write_rows([row(seed) for seed in range(3)])), max_new_tokens=3)
    result = evaluate_checkpoint(
        rewriting, params=params, model_name="m", answers_file=tmp_path / "a"
    )
    assert result.loss is None and not result.losses and result.scores["made_up"].n == 3
    assert result.notes == {
        "made_up": "3 rows have no loss: the model's chat template rewrites earlier turns"
    }
    with pytest.raises(InputError, match="rewrites earlier turns"):
        next_token = params.model_copy(update={"heldout_metric": "next-token"})
        evaluate_checkpoint(rewriting, params=next_token, model_name="m")


def test_the_process_is_left_as_it_was(
    checkpoint: Checkpoint, params: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    def state() -> list[Any]:
        numpy_state = np.random.get_state()[1].tolist()
        torch_state = torch.get_rng_state().tolist()
        return [dict(os.environ), random.getstate(), numpy_state, torch_state]

    original = state()
    evaluate_checkpoint(checkpoint, params=params, model_name="dense")
    with isolated(offline=True):
        draws = random.random(), np.random.rand(), torch.rand(1)
    assert state() == original, draws
    assert capsys.readouterr().out == ""


def test_an_endpoint_grades_each_answer_once(
    checkpoint: Checkpoint, params: Evaluate, tmp_path: Path
) -> None:
    target = f"\n{rows(1)[0]['texts'][-1]['assistant']}\n"

    def reply(prompt: str) -> str:
        if "You grade" in prompt:
            return "CORRECT" if target in prompt else "INCORRECT"
        return "total score: 5/10"

    with chat_server(reply) as server:
        judge = Judge(url=server.url, model="m")
        changes = {"benchmarks": ("MIABench",), "heldout": None, "judge": judge}
        run = partial(evaluate_checkpoint, checkpoint, params=params.model_copy(update=changes))
        first, second = (run(model_name="m", judgements=tmp_path / "judged") for _ in range(2))
    assert first == second
    assert {name: s.score for name, s in first.scores.items()} == {"MIABench": 50, "open": 25}
    assert len(server.requests) == 8
    assert server.url not in json.dumps(first.as_json())


def test_an_interrupted_evaluation_resumes_after_its_last_batch(
    checkpoint: Checkpoint, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = Evaluate(heldout=str(write_rows(rows(11))), batch_size=3, max_new_tokens=3)
    reference, resumed = tmp_path / "reference.parquet", tmp_path / "resumed.parquet"
    run = partial(evaluate_checkpoint, checkpoint, params=params, model_name="m")
    run(answers_file=reference)
    batches = interrupt(monkeypatch, Journal, call=3, name="save")
    with pytest.raises(KeyboardInterrupt):
        run(answers_file=resumed, scratch=tmp_path / "scratch")
    run(answers_file=resumed, scratch=tmp_path / "scratch")
    sizes = [len(replies) for _, replies, _ in batches]
    assert sizes[:3] == [3, 3, 3]  # the third is lost
    assert sum(sizes[3:]) == 5
    assert resumed.read_bytes() == reference.read_bytes()
    damage(tmp_path / "scratch")
    run(answers_file=resumed, scratch=tmp_path / "scratch")
    assert resumed.read_bytes() == reference.read_bytes()


ON_A_NODE = """
import json, os, signal, sys
from pathlib import Path
from interlace.checkpoint.checkpoint import Checkpoint
from interlace.evaluation.run.evaluate import evaluate_checkpoint
from interlace.evaluation.run.journal import Journal
from interlace.params.evaluating import Evaluate
rank, folder = os.environ["RANK"], Path(sys.argv[3])
save, calls = Journal.save, []
def dying(*args):
    calls.append(1)
    if rank == sys.argv[4] and len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return save(*args)
Journal.save = dying
params = Evaluate.model_validate_json(sys.argv[1])
result = evaluate_checkpoint(Checkpoint(Path(sys.argv[2])), params=params, model_name="m",
    answers_file=folder / f"{rank}.parquet", scratch=folder / "scratch")
(folder / rank).write_text(json.dumps(result.as_json()))
"""


@pytest.mark.slow
def test_two_nodes_of_which_one_dies_and_comes_back_score_as_one_process(
    checkpoint: Checkpoint, write_rows: Write, tmp_path: Path
) -> None:
    examples = rows(9, source="a") + rows(4, source="b")
    with isolated(offline=True):
        from interlace.evaluation.run.adapter import open_adapter

        adapter = open_adapter(checkpoint, Evaluate(batch_size=4))
        for row in examples[::2]:  # half of the true answers are the model's own
            inputs = encode_messages(adapter.processor, chat_messages(row)[:-1])
            answer = adapter._generate([inputs], [{"max_new_tokens": 3}])
            row["texts"][-1]["assistant"] = answer[0]
    params = Evaluate(heldout=str(write_rows(examples)), batch_size=1, max_new_tokens=3)
    answers_file = tmp_path / "one.parquet"
    alone = evaluate_checkpoint(
        checkpoint, params=params, model_name="m", answers_file=answers_file
    )
    assert 0 < alone.scores["a"].score < 100

    script = tmp_path / "script.py"
    script.write_text(ON_A_NODE)
    command = [str(script), params.model_dump_json(), str(checkpoint.folder), str(tmp_path)]
    killed = nodes.ended(nodes.start_nodes([*command, "1"]))  # the second node's process dies
    assert [code for code, _ in killed] == [1, 1], killed
    assert not (tmp_path / "0.parquet").exists()
    ends = nodes.ended(nodes.start_nodes([*command, "none"]))
    assert [code for code, _ in ends] == [0, 0], ends
    for process in "01":
        assert json.loads((tmp_path / process).read_text()) == alone.as_json()
    assert (tmp_path / "0.parquet").read_bytes() == answers_file.read_bytes()
    assert not (tmp_path / "1.parquet").exists()
    journals = [tmp_path / f"scratch/answers-{process}.jsonl" for process in "01"]
    batches = [len([line for line in path.read_text().splitlines() if line]) for path in journals]
    assert sum(batches) == 13 and min(batches) >= 2  # none is answered twice


def test_an_image_that_cannot_be_opened_is_named(
    checkpoint: Checkpoint, params: Evaluate, tmp_path: Path
) -> None:
    path = write_parquet("AI2D", tmp_path / "data/AI2D.parquet", 4)
    table = pq.read_table(path)
    values = table["image"].to_pylist()
    values[2] |= {"bytes": values[2]["bytes"][:-40]}
    column = pa.array(values, table.schema.field("image").type)
    pq.write_table(table.set_column(table.column_names.index("image"), "image", column), path)
    broken = params.model_copy(update={"benchmarks": ("AI2D",)})
    with pytest.raises(InputError, match="task 'ai2d', row 2: an image is cut short or damaged"):
        evaluate_checkpoint(checkpoint, params=broken, model_name="dense")
