"""A copy of a checkpoint has the files of a stock one, and none about the dense weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plans import PLAN
from safetensors.torch import load_file

from interlace.checkpoint.companions import companions
from interlace.checkpoint.replace import with_tensors
from interlace.errors import InputError
from interlace.pruning.export import export_checkpoint
from interlace.report.publish import files_to_publish

STOCK = (
    *("generation_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("processor_config.json", "chat_template.json", "chat_template.jinja", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model"),
    *("tokenizer.model.v3", "tekken.json", "qwen.tiktoken", "tiktoken.model", "LICENSE", "NOTICE"),
    *("LICENSE.txt", "LICENCE.md", "additional_chat_templates/tool_use.jinja"),
)
OTHERS = (
    *("params.json", "trainer_state.json", "training_args.bin", "optimizer.pt", "README.md"),
    *("consolidated.safetensors", "consolidated.safetensors.index.json", "all_results.json"),
    *("pytorch_model.bin.index.json", "quantize_config.json", "hf_quant_config.json", "notes.txt"),
    *("model.py", "modeling_x.py", "eval_results.json", "requirements.txt", ".hidden.json"),
    *("global_step9/tokenizer.json", "runs/events.json", "model.safetensors.index.json"),
)


def names(folder: Path, *, trust_remote_code: bool = False) -> set[str]:
    files = companions(folder, trust_remote_code=trust_remote_code)
    return {path.relative_to(folder).as_posix() for path in files}


def test_only_files_of_a_stock_checkpoint_go_along(tmp_path: Path) -> None:
    for name in (*STOCK, *OTHERS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert names(tmp_path) == set(STOCK)


def test_trusted_code_goes_along_as_far_as_the_configurations_name_it(tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "configuration_x.X", "AutoTokenizer": ["tokenization_x.X", None]}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    (tmp_path / "configuration_x.py").write_text("from .sizes import SIZE\nfrom . import more\n")
    (tmp_path / "custom_generate").mkdir()
    for name in ("tokenization_x", "sizes", "more", "train", "custom_generate/generate"):
        (tmp_path / f"{name}.py").write_text("import os\n")
    code = {"configuration_x.py", "tokenization_x.py", "sizes.py", "more.py"}
    code |= {"custom_generate/generate.py"}
    assert names(tmp_path, trust_remote_code=True) == code
    assert names(tmp_path) == set()
    (tmp_path / "sizes.py").unlink()
    with pytest.raises(InputError, match=r"sizes\.py: no such file"):
        names(tmp_path, trust_remote_code=True)


def test_code_of_another_repository_is_refused(tmp_path: Path) -> None:
    auto_map = {"AutoConfig": "org/other--configuration_x.X"}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    with pytest.raises(InputError, match=r"config\.json: auto_map names code of another repo"):
        names(tmp_path, trust_remote_code=True)


def test_a_folder_of_templates_goes_along_to_the_hub(dense_dir: Path, tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    dense.mkdir()
    for path in dense_dir.iterdir():
        (dense / path.name).write_bytes(path.read_bytes())
    template = Path("additional_chat_templates/tool_use.jinja")
    (dense / template).parent.mkdir()
    (dense / template).write_text("{{ messages }}")
    export_checkpoint(dense, PLAN, tmp_path / "artifacts/pruned")
    file = next((tmp_path / "artifacts/pruned").glob("*.safetensors"))
    name, value = next(iter(load_file(file).items()))
    with_tensors(tmp_path / "artifacts/pruned", {name: value + 1}, tmp_path / "artifacts/tuned")
    (tmp_path / "artifacts/report").mkdir()
    (tmp_path / "artifacts/report/tuned.md").write_text("# Card")
    files = files_to_publish(tmp_path / "artifacts", "tuned", "org/name")
    assert files[template.as_posix()] == tmp_path / "artifacts/tuned" / template
