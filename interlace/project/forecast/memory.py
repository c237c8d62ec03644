"""The peak memory of a process by stage: arithmetic on sizes.

T is the tokens of a batch or a pass, with padding; b the bytes of a number that is computed with; d
the decoder's width. Inference keeps nothing but what a stage records: one layer's work is alive at
a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from interlace.model.answer_loss import CHUNK
from interlace.params.healing import Recipe
from interlace.params.whole import Params
from interlace.project.forecast.machine import GIB
from interlace.project.forecast.setting import Setting
from interlace.project.forecast.sizes import Patch, Sizes
from interlace.speed.requests import SHAPES
from interlace.training.checkpointing import FREE_SHARE

FIXED = GIB  # of a process: libraries, and on a GPU the CUDA context and gaps
BUCKET = 5e8  # numbers that DeepSpeed gathers gradients in before it sends them
LIVE = 1e9  # weights that ZeRO-3 keeps gathered
SHARED = 2**30  # bytes of states that `sensitivity` keeps for the next removal
GATHERED = 2**27  # numbers of states that `collect` multiplies at once on a GPU


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a stage, in each process.

    Attributes:
        weights: of the models that are open.
        activations: of a pass, recorded states among them.
        gradients: of trained weights.
        optimizer: float32 masters and moments.
        cache: keys and values while answers are generated.
    """

    weights: float = 0
    activations: float = 0
    gradients: float = 0
    optimizer: float = 0
    cache: float = 0

    @property
    def peak(self) -> float:
        """All of it, and what every process takes."""
        return FIXED + sum(
            (self.weights, self.activations, self.gradients, self.optimizer, self.cache)
        )


def batch_tokens(limit: int, longest: float) -> float:
    """Return the tokens of the largest batch: of `limit`, or of one longer row."""
    return max(limit, longest)


def layer_work(sizes: Sizes, b: int) -> float:
    """Return the bytes of a token while a decoder layer computes without a graph."""
    return b * max(3 * sizes.inner + 2 * sizes.width, 2 * sizes.query + 4 * sizes.key) + 4 * (
        2 * sizes.width
    )


def mask_bytes(tokens: float, row: float, b: int) -> float:
    """Return the bytes of a mask of padded rows: true or false, and as numbers."""
    return tokens * row * (1 + b)


def tower_work(patch: Patch, image_tokens: float, b: int) -> float:
    """Return the bytes of the vision tower's work on images of so many tokens."""
    patches = image_tokens * patch.per_token
    return patches * (patch.values * (4 + b) + b * (3 * patch.inner + 8 * patch.width))


def cache_token(sizes: Sizes, b: int) -> float:
    """Return the bytes of a token's keys and values in all layers."""
    return 2 * b * sizes.key * sizes.n_layers


def saved_by_layer(sizes: Sizes, b: int, *, tuned: bool, padded_row: float = 0) -> float:
    """Return the bytes per token that autograd saves of a layer: norms, attention, gated MLP.

    A frozen layer saves what its gradient by the states needs. A tuned one adds the inputs of its
    matrices and norms.

    Args:
        sizes: of the model.
        b: bytes of a number.
        tuned: the layer's own weights are trained.
        padded_row: tokens of a row, where rows are padded or packed: attention then has a mask, and
            a copy of keys and values for each head of the queries; 0: no mask.
    """
    heads = 4 * (sizes.query + sizes.key) if sizes.normed_heads else 0
    states = 8 * sizes.width + heads
    attention = b * (2 * sizes.query + 2 * (sizes.query if padded_row else sizes.key))
    saved = states + attention + b * padded_row + 3 * b * sizes.inner
    if tuned:
        saved += b * (4 * sizes.width + sizes.inner)
        saved += b * (sizes.query + sizes.key) if sizes.normed_heads else 0
    return saved


def trained_weights(setting: Setting, recipe: Recipe) -> float:
    """Return the count of trained weights."""
    if recipe.lora_rank:
        return recipe.lora_rank * setting.tunes * setting.dense.linears
    also = sum(setting.dense.also.get(name, 0) for name in recipe.also)
    return setting.tunes * setting.dense.layer + also


def pass_rows(recipe: Recipe, processes: int) -> int:
    """Return the rows of a forward pass of one process."""
    return min(recipe.micro_batch_size, max(1, recipe.batch_size // processes))


def pass_tokens(setting: Setting, recipe: Recipe) -> float:
    """Return the tokens of a pass whose longest row is the longest of all, with padding."""
    row = setting.trained
    rows = pass_rows(recipe, setting.processes)
    if not recipe.packing:
        return rows * row.most
    return math.ceil(1 + (rows - 1) * row.mean / row.most) * row.most if row.most else 0


def training(setting: Setting, sizes: Sizes, recipe: Recipe, dtype: str) -> Memory:
    """Return the memory of end-to-end training.

    Args:
        setting: all else.
        sizes: of the model that is trained.
        recipe: of the training.
        dtype: to compute in.
    """
    b = setting.element(dtype)
    count, processes = trained_weights(setting, recipe), setting.processes
    memory = model_states(sizes, recipe, b, count, processes)
    tokens, row = pass_tokens(setting, recipe), setting.trained.most
    frozen, tuned = (saved_by_layer(sizes, b, tuned=t, padded_row=row) for t in (False, True))
    tuned_layers = min(setting.tunes, sizes.n_layers)
    all_saved = tokens * ((sizes.n_layers - tuned_layers) * frozen + tuned_layers * tuned)
    checkpointed = tokens * (sizes.n_layers * b * sizes.width + tuned)
    saved = checkpointed
    if recipe.gradient_checkpointing is False:
        saved = all_saved
    elif recipe.gradient_checkpointing == "auto":
        room = setting.machine.share(processes) - memory.peak
        saved = all_saved if all_saved <= FREE_SHARE * room else checkpointed
    answers = min(tokens, CHUNK) * sizes.vocabulary * (2 * b + 8) if count else 0
    backward = saved + tokens * layer_work(sizes, b) + answers
    updating = 4 * count / (processes if recipe.zero_stage else 1) if setting.machine.gpus else 0
    return replace(memory, activations=max(backward, updating))


def model_states(sizes: Sizes, recipe: Recipe, b: int, count: float, processes: int) -> Memory:
    """Return weights, gradients and optimizer: on one process, or shared out by ZeRO."""
    masters = 4 * count if b < 4 or recipe.zero_stage else 0
    if not recipe.zero_stage:
        gradients = (4 + b if b < 4 else 4) * count
        return Memory(b * sizes.total, 0, gradients, masters + 8 * count)
    weights: float = b * sizes.total
    if recipe.zero_stage == 3:
        gathered = min(sizes.total, LIVE + sizes.largest)
        at_rest = 0 if recipe.offload == "all" else sizes.total / processes
        weights = b * (at_rest + gathered)
    bucket = 2 * b * min(BUCKET, count)
    on_host = recipe.offload != "none"
    gradients = bucket + b * count / processes + (0 if on_host else 4 * count / processes)
    return Memory(weights, 0, gradients, 0 if on_host else (masters + 8 * count) / processes)


def state_bytes(sizes: Sizes, tokens: float, b: int) -> float:
    """Return the bytes of all layers' true inputs and outputs, a tensor that is both once."""
    return tokens * b * sizes.width * (sizes.n_layers + 1 + sizes.taps)


def collecting(setting: Setting) -> Memory:
    """Return the memory of `collect`: all layers' states of the largest batch."""
    params, sizes, b = setting.params, setting.dense, setting.element(setting.params.dtype)
    tokens = batch_tokens(params.measure.batch_tokens, setting.prompts.most)
    row = min(setting.prompts.most, params.measure.batch_tokens / 2)
    states = state_bytes(sizes, tokens, b)
    work = tokens * layer_work(sizes, b) + mask_bytes(tokens, row, b)
    multiplied = b * GATHERED if setting.machine.gpus else 0
    tower = _tower(setting, params, tokens, b)
    devices = max(1, setting.machine.gpus) if params.collect.device_map == "auto" else 1
    return Memory(b * sizes.total / devices, max(states + max(work, multiplied), tower) / devices)


def _tower(setting: Setting, params: Params, tokens: float, b: int) -> float:
    """Return the work of the vision tower on a batch that is as full of images as one may be."""
    if not setting.rows.images.most:
        return 0
    image = setting.rows.image_tokens(setting.dense.patch, params.measure.max_pixels)
    longest = max(1.0, setting.prompts.most)
    share = min(1.0, setting.rows.images.most * image.most / longest)
    return tower_work(setting.dense.patch, share * tokens, b)


def sensing(setting: Setting, criterion: str) -> Memory:
    """Return the memory of `sensitivity`."""
    params, sizes, b = setting.params, setting.dense, setting.element(setting.params.dtype)
    tokens = batch_tokens(params.measure.batch_tokens, setting.answered.most)
    head = 2 * CHUNK * sizes.vocabulary * (b + 8)
    work = tokens * layer_work(sizes, b) + head
    if criterion != "taylor":
        return Memory(b * sizes.total, work + SHARED)
    states = tokens * b * sizes.width * sizes.n_layers
    saved = tokens * saved_by_layer(sizes, b, tuned=True, padded_row=1)
    sums = 4 * sizes.n_layers * sizes.layer + b * sizes.layer
    return Memory(b * sizes.total, work + states + saved, sums)


def exporting(setting: Setting) -> Memory:
    """Return the memory of the check in `export`: one model at a time, one prompt at a time."""
    sizes, b = setting.dense, setting.element("auto")
    tokens = setting.prompts.most
    if not setting.params.export.parity_samples:
        return Memory()
    states = 2 * tokens * b * sizes.width
    tower = _tower(setting, setting.params, tokens, b)
    return Memory(b * sizes.total, max(states + tokens * layer_work(sizes, b), tower))


def evaluating(setting: Setting, sizes: Sizes) -> Memory:
    """Return the memory of `evaluate` at its longest batch."""
    evaluate, b = setting.params.evaluate, setting.element(setting.params.dtype)
    peak = Memory(b * sizes.total)
    for benchmark in setting.questions:
        rows = min(evaluate.batch_size, benchmark.rows)
        cache = rows * (benchmark.tokens.most + benchmark.answer) * cache_token(sizes, b)
        work = rows * benchmark.tokens.most * layer_work(sizes, b)
        work += mask_bytes(rows * benchmark.tokens.most, benchmark.tokens.most, b)
        states = rows + (2 * CHUNK if benchmark.with_loss else 0)
        logits = states * sizes.vocabulary * (b + 8)
        tower = tower_work(sizes.patch, rows * benchmark.image, b)
        memory = Memory(b * sizes.total, max(work + logits, tower), cache=cache)
        peak = max(peak, memory, key=lambda memory: memory.peak)
    return peak


def generating(setting: Setting) -> Memory:
    """Return the memory of `answers`, which generates in batches of `answers.batch_tokens`."""
    params, sizes, b = setting.params, setting.dense, setting.element(setting.params.dtype)
    longest = setting.trained.most + params.answers.max_new_tokens
    tokens = batch_tokens(params.answers.batch_tokens, longest)
    return Memory(
        b * sizes.total, tokens * layer_work(sizes, b), cache=tokens * cache_token(sizes, b)
    )


def request_tokens(setting: Setting) -> list[tuple[float, float]]:
    """Return the tokens of the requests that `ttft` sends, and of these those of images."""
    ttft, patch = setting.params.ttft, setting.dense.patch
    if ttft.shapes:
        images = [(SHAPES[n], setting.shape_image(SHAPES[n], None)) for n in ttft.shapes]
        return [(shape.text_tokens + 15 + image, image) for shape, image in images]
    rows = setting.rows
    prompt = rows.tokens(rows.prompt, patch, None, 2**31)
    image = rows.images.mean * rows.image.mean
    return [(prompt.mean, image)] * (ttft.requests - 1) + [(prompt.most, image)]


def timing(setting: Setting) -> Memory:
    """Return the memory of `ttft`: both models and the longest request, or the largest batch."""
    sizes, b = setting.dense, setting.element(setting.params.dtype)
    requests = sorted(request_tokens(setting))
    batches = [(1, *requests[-1])]
    batches += [(n, *requests[len(requests) // 2]) for n in setting.params.ttft.batch_sizes]
    weights = b * (sizes.total + setting.pruned.total)
    peaks = []
    for rows, tokens, image in batches:
        work = max(layer_work(sizes, b) * rows * tokens, tower_work(sizes.patch, rows * image, b))
        cache = rows * (tokens + setting.params.ttft.new_tokens) * cache_token(sizes, b)
        peaks.append(Memory(weights, work + rows * sizes.vocabulary * (b + 8), cache=cache))
    return max(peaks, key=lambda memory: memory.peak)
