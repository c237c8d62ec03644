"""An adapter that asks servers with OpenAI's chat completions, instead of a model opened here.

Losses of true answers need the model's own numbers, so none are measured. An answer that fails for
good is missing, never wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from typing import Any

from tqdm import tqdm

from interlace.errors import InputError
from interlace.evaluation.run.journal import Reply
from interlace.evaluation.run.requests import broken_images_named, cut, hf_messages
from interlace.evaluation.run.servers import Servers
from interlace.sources.endpoint import NoReply, wire_messages

Resize = Callable[[Any], Any]  # of an open image
NEUTRAL = {"top_p": 1.0, "top_k": 0, "presence_penalty": 0.0}  # of sampling: not sent


class ServedAdapter:
    """A served model that answers one request each, many at the same time.

    Args:
        servers: of the model.
        concurrency: requests to each server at the same time.
        max_failed: share of answers that may fail for good.
        resize: makes an image the size that the server is to see; `None`: its full size.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        concurrency: int,
        max_failed: float,
        resize: Resize | None = None,
    ) -> None:
        self.servers = servers
        self.concurrency = concurrency
        self.max_failed = max_failed
        self.resize = resize
        self.task_dict: dict[str, Any] = {}
        self.conversations: dict[str, Callable[[Any], list[dict[str, Any]]]] = {}
        self._reading = threading.Lock()  # of rows, which lmms-eval's data sets decode

    def batches(
        self,
        requests: Sequence[Any],
        *,
        skip: Container[int] = (),
        process: int = 0,
        processes: int = 1,
    ) -> Iterator[dict[int, Reply]]:
        """Yield replies by index in `requests`, as they come; the first process asks for all.

        Args:
            requests: lmms-eval instances, see `CheckpointAdapter.generate_until`.
            skip: indices that need no answer.
            process: rank of this process.
            processes: number of processes.

        Raises:
            InputError: more answers fail than may, no server is left, or one refuses.
        """
        if process:
            return
        # longest first: a request that does not fit fails at once
        order = sorted(range(len(requests)), key=lambda i: -len(str(requests[i].args[0])))
        indices = [index for index in order if index not in skip]
        failures: list[NoReply] = []
        ends: list[BaseException] = []  # reasons to ask no more
        pool = ThreadPoolExecutor(self.concurrency * len(self.servers))
        try:
            futures = {pool.submit(self._reply, requests[index]): index for index in indices}
            with tqdm(total=len(order), desc="answering", unit="prompt") as progress:
                progress.update(len(order) - len(indices))
                for future in _finished(futures, lambda: bool(ends)):
                    error = future.exception()
                    if isinstance(error, NoReply):
                        failures.append(error)
                        if len(failures) > self.max_failed * len(requests):
                            ends.append(self._too_many(failures, len(requests)))
                        yield {futures[future]: Reply("", missing=True)}
                    elif error:
                        ends.append(error)
                    else:
                        yield {futures[future]: future.result()}
                    progress.update()
            if ends:
                raise ends[0]
        finally:
            pool.shutdown(cancel_futures=True)

    def _too_many(self, failures: Sequence[NoReply], total: int) -> InputError:
        return InputError(
            f"evaluate: {len(failures)} of {total:,} answers failed, more than evaluate.max_failed"
            f" = {self.max_failed:g} allows; the last one: {failures[-1]}"
        )

    def _reply(self, request: Any) -> Reply:
        """Ask for one answer.

        Raises:
            NoReply: it failed for good.
            InputError: no other answer can be had either.
        """
        settings: Mapping[str, Any] = request.args[2]
        temperature = settings.get("temperature") or 0.0
        sampling = {name: settings[name] for name in NEUTRAL.keys() & settings.keys()}
        sampling = {name: value for name, value in sampling.items() if value != NEUTRAL[name]}
        completion = self.servers.complete(
            wire_messages(self._messages(request)),
            max_tokens=settings["max_new_tokens"],
            temperature=temperature,
            seed=settings.get("seed") if temperature else None,
            sampling=sampling,
        )
        return Reply(cut(completion.whole, settings.get("until") or ()))

    def _messages(self, request: Any) -> list[dict[str, Any]]:
        """Return a request's messages, with images as the server is to see them."""
        _, doc_to_messages, _, row, task, split = request.args
        with broken_images_named(task, row), self._reading:
            messages = hf_messages(doc_to_messages(self.task_dict[task][split][row]), task)
        for item in (item for message in messages for item in message["content"]):
            if self.resize and item["type"] == "image":
                item["image"] = self.resize(item["image"])
        return messages


def _finished(
    futures: Collection[Future[Reply]], is_over: Callable[[], bool]
) -> Iterator[Future[Reply]]:
    """Yield futures as they finish; when it is over, the running ones, which are waited for."""
    finished = set()
    for future in as_completed(futures):
        finished.add(future)
        yield future
        if is_over():
            break
    running = [future for future in futures if future not in finished and not future.cancel()]
    wait(running)
    yield from running


def resizer(processor: Any) -> Resize:
    """Return a function that resizes an image as a processor does, within its bounds.

    A server with the same processor, whose bounds are wider, then changes no pixel.

    Args:
        processor: with an image processor that bounds areas, see `model.open.open_processor`.

    Raises:
        InputError: its smallest image is larger than its largest.
    """
    from torchvision.transforms.v2 import functional

    images = processor.image_processor
    if images.size["shortest_edge"] > images.size["longest_edge"]:
        raise InputError(
            f"evaluate.max_pixels = {images.size['longest_edge']}: a server enlarges images to the"
            f" {images.size['shortest_edge']:,} pixels of the model's processor; set it to that or"
            " more"
        )

    def resize(image: Any) -> Any:
        pixels = images.resize(
            images=functional.pil_to_tensor(image),  # [channels, height, width]
            size=images.size,
            resample=images.resample,
            factor=images.patch_size * images.merge_size,
            temporal_factor=images.temporal_patch_size,
        )
        return functional.to_pil_image(pixels)

    return resize
