"""Run llama.cpp's converter on a checkpoint whose tokenizer it does not know.

    PYTHON convert_gguf.py LLAMA_CPP CHECKPOINT ARGUMENTS...

The converter tells tokenizers by a hash, and refuses all others. This takes any for Qwen2's
(byte-level BPE), which the demo's is.
"""

from __future__ import annotations

import runpy
import sys


def main(llama_cpp: str, *arguments: str) -> None:
    """Let the converter take the tokenizer for a known one, and run it."""
    sys.path.insert(0, f"{llama_cpp}/gguf-py")
    sys.path.insert(0, llama_cpp)
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
    TextModel._set_vocab_sentencepiece = lambda self, *further: self._set_vocab_gpt2()
    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    runpy.run_path(f"{llama_cpp}/convert_hf_to_gguf.py", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
