"""Embeddings: a vector for each text by a sentence-transformers model, and what the vectors say about rows.

    row ──> what is said, without the system prompt ──> model ──> vector (kept by content hash)
    vectors of all rows that are judged ──> nearest other row, diversity = 1 - cosine ──> near-duplicates in meaning

The vectors are asked for once per text; diversity and nearest depend on all rows and are made anew in each run. Pairs
above the threshold are told and stay, unless `semantic_action` is "reject".
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.quality.neighbours import (
    MOST_PAIRS,
    NONE,
    Neighbours,
    find_neighbours,
    find_stars,
    unit_vectors,
    whole_numbers,
)
from curate.quality.scorer import RETRY
from schemas.config import ScoreConfig
from schemas.dataset import Dataset
from schemas.errors import ConfigError, ModelError
from schemas.manifest import digest
from schemas.record import record_of

TEXT_VERSION = 1
"""Goes up whenever the same row would be embedded as another text."""

PIECE_BATCHES = 16
"""Batches that are embedded before their vectors are handed on."""

EXAMPLES = 3
"""Pairs that are named as examples."""

KEPT = pl.Schema({"vector": pl.List(pl.Int16)})
COLUMNS = pl.Schema({"diversity": pl.Float32, "nearest": pl.String})

_WEIGHTS = (".safetensors", ".bin", ".pt", ".json", ".txt", ".model", ".npz")
"""Endings of the files that decide what a model says: weights, settings, vocabulary."""

_OTHER_RUNTIMES = ("onnx", "openvino", "coreml", "tf_model.h5", "rust_model.ot")
"""The same weights again, for programs that are not used here."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def embedded_text(row: Mapping[str, Any]) -> str:
    """Give the text that stands for a row: its turns without system prompts, context composed in, one after another.

    System prompts are left out: a few of them recur in thousands of rows and would make these alike.
    """
    said = (message.content for message in record_of(row).messages if message.role != "system")
    return "\n\n".join(text for text in said if text and text.strip())


class Embedder:
    """A scorer that gives each text a vector. The model is loaded when the first text comes."""

    name = "embedding"
    kept = KEPT
    columns = COLUMNS
    reads_tools = False

    def __init__(self, config: ScoreConfig, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._device = None if config.device == "auto" else config.device
        self._batch, self._threshold = config.embed_batch, config.embed_threshold
        self._rejects = config.semantic_action == "reject"
        self._model: Any = None
        self._notes: list[str] = []
        self._cut = 0
        weights = folder_digest(folder)
        self.key = digest([self.name, weights, TEXT_VERSION])
        self.provenance: dict[str, Any] = {
            "model": name,
            "weights": weights,
            "text_version": TEXT_VERSION,
            "sentence_transformers": version("sentence-transformers"),
        }

    def score(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Embed rows, texts of like length together. Reads: ROW_COLUMNS. Gives: content_hash, vector, retry.

        `vector`: a unit vector times `neighbours.SCALE`, rounded; null where the model gives a text no direction.
        Raises ModelError for a model that cannot be loaded, or for which there is not memory enough.
        """
        model = self._model = self._model or self._load()
        texts = [embedded_text(row) for row in rows.iter_rows(named=True)]
        hashes = rows["content_hash"]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        at = 0
        while at < len(order):
            piece = order[at : at + self._batch * PIECE_BATCHES]
            vectors = self._embedded(model, [texts[i] for i in piece])
            at += len(piece)
            numbers = pl.Series("vector", whole_numbers(vectors)).cast(pl.List(pl.Int16))
            directed = pl.Series(np.abs(vectors).max(axis=1) > 0)
            yield pl.DataFrame({"content_hash": hashes.gather(piece), "vector": numbers}).with_columns(
                pl.when(directed).then("vector"), pl.lit(value=False).alias(RETRY)
            )

    def finish(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Compare all rows with each other. Reads: id, source, quality, vector. Adds: diversity, nearest.

        `diversity`: 1 - cosine with the nearest other row, from 0 to 2; `nearest`: that row's id (of equals, the
        smallest). With `semantic_action = "reject"` also verdict and detail: rows are taken by quality (highest first,
        none last), then id, and one that is alike to a row that stays goes with it.
        """
        known = rows.with_row_index("row").filter(pl.col("vector").is_not_null()).sort("id")
        found = find_neighbours(vectors_of(known["vector"]), self._threshold)
        nearest = known["id"].gather(_places(found.nearest))
        named = known.select(
            "row",
            diversity=pl.when(nearest.is_not_null()).then(pl.Series(1.0 - found.similarity, dtype=pl.Float32)),
            nearest=nearest,
        )
        self._tell(found, known)
        if self._rejects:
            named = named.hstack(self._verdicts(found, known))
        return (
            rows.select(row=pl.int_range(pl.len(), dtype=pl.UInt32))
            .join(named, on="row", how="left", maintain_order="left")
            .drop("row")
        )

    def notes(self) -> list[str]:
        """Tell what was cut, what had to give way, and which rows mean the same."""
        if not self._cut:
            return self._notes
        return [*self._notes, f"texts longer than the model reads, which stand for their beginning: {self._cut:,}"]

    def _load(self) -> Any:
        """Load the model, without code of its own and without asking the network."""
        from safetensors import SafetensorError  # noqa: PLC0415 # comes with the model library
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 # takes seconds, and is an extra

        where = f"--embed {self._name}"
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)  # what matters is in our notes
        if not (self._folder / "modules.json").exists():
            self._notes.append(f"{self._name} is no sentence-transformers model: the mean of its last states is taken")
        try:
            return SentenceTransformer(
                str(self._folder), device=self._device, local_files_only=True, trust_remote_code=False
            )
        except (
            OSError,
            ValueError,
            ImportError,
            LookupError,
            RuntimeError,
            TypeError,
            AttributeError,
            AssertionError,
            SafetensorError,
        ) as error:
            raise ModelError(
                where, f"cannot be loaded ({_first_line(error)})", "a sentence-transformers model"
            ) from error

    def _embedded(self, model: Any, texts: list[str]) -> NDArray[np.float32]:
        """Give a unit vector for each text, 0 for one without direction; halve the batch where memory runs out."""
        self._cut += _longer_than_read(model, texts)
        where = f"--embed {self._name}"
        while True:
            try:
                vectors = model.encode(
                    texts,
                    batch_size=self._batch,
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
            except (RuntimeError, LookupError, ValueError, TypeError) as error:
                if not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
                    raise ModelError(where, f"cannot embed ({_first_line(error)})", "vectors of texts") from error
                if self._batch == 1:
                    remedy = "--device cpu, or a smaller model"
                    raise ModelError(where, "too little memory for one text at a time", remedy=remedy) from error
                self._batch //= 2
                self._notes.append(f"out of memory: {self._batch} texts at a time from here on (--embed-batch)")
            else:
                vectors = np.asarray(vectors, np.float32)
                if not np.isfinite(vectors).all():
                    raise ModelError(where, "gives vectors that are no numbers", "finite vectors", "another model")
                return vectors

    def _tell(self, found: Neighbours, known: pl.DataFrame) -> None:
        """Say how many pairs mean nearly the same, and name some."""
        what = f"pairs with a cosine of {self._threshold:g} or more (semantic near-duplicates)"
        if not found.pairs:
            self._notes.append(f"{what}: none")
            return
        ids = known["id"]
        shown = [
            f"{ids[int(found.first[k])][:12]} and {ids[int(found.second[k])][:12]} ({found.cosine[k]:.3f})"
            for k in np.argsort(-found.cosine, kind="stable")[:: max(1, len(found.cosine) // EXAMPLES)][:EXAMPLES]
        ]
        fate = "one row of each group stays" if self._rejects else "all rows stay"
        self._notes.append(f"{what}: {found.pairs:,}, {fate}; such as {', '.join(shown)}")

    def _verdicts(self, found: Neighbours, known: pl.DataFrame) -> pl.DataFrame:
        """Give verdict and detail of the rows that go. Reads: id, source, quality."""
        if found.pairs > MOST_PAIRS:
            where, what = f"--embed-threshold {self._threshold:g}", f"{found.pairs:,} pairs of rows reach it"
            raise ConfigError(where, what, f"at most {MOST_PAIRS:,}", "choose a higher one, or another model")
        by_preference = known.with_row_index("at").sort("quality", "id", descending=[True, False], nulls_last=True)
        stays, cosine = find_stars(found, by_preference["at"].to_numpy().astype(np.int64))
        of = known.select(pl.col("id", "source").gather(_places(stays)))
        return of.select(
            verdict=pl.when(pl.col("id").is_not_null()).then(pl.lit("duplicate:semantic")),
            detail=pl.format("cosine {} with {} ({})", pl.Series(cosine).cast(pl.Float64).round(3), "id", "source"),
        )


def _places(positions: NDArray[np.int64]) -> pl.Series:
    """Give positions with null for NONE."""
    places = pl.Series(positions)
    return places.set(places == NONE, None)


def vectors_of(column: pl.Series) -> NDArray[np.int16]:
    """Give the vectors of a column without nulls as a matrix, a row for each."""
    sizes = column.list.len().unique()
    if len(sizes) > 1:
        raise AssertionError(f"vectors of several sizes: {sizes.to_list()}")
    width = int(sizes[0]) if len(sizes) else 0
    return column.explode(empty_as_null=False).to_numpy().astype(np.int16, copy=False).reshape(len(column), width)


def stored_vectors(dataset: Dataset) -> pl.DataFrame | None:
    """Give the vectors that a version keeps: content_hash, vector (unit, float32, an array); None where it has none.

    A text that the model gave no direction is not in it.
    """
    entry = dataset.manifest.stage("score")
    scorer: Mapping[str, Any] | None = entry.config.get("scorers", {}).get(Embedder.name) if entry else None
    if scorer is None:
        return None
    files = [f for f in dataset.manifest.files_of("score") if f.role == "index" and f.made_from == scorer["key"]]
    parts = [pl.read_ipc(dataset.path(file)) for file in files if file.rows]
    if not parts:
        return None
    whole = pl.concat(parts).unique("content_hash", keep="first", maintain_order=True).drop_nulls("vector")
    units = unit_vectors(vectors_of(whole["vector"]))
    return whole.select("content_hash", vector=pl.Series(units, dtype=pl.Array(pl.Float32, units.shape[1])))


def folder_digest(folder: Path) -> str:
    """Digest what decides a model's answers: names and bytes of its weights, settings and vocabulary, 64 hex digits."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _WEIGHTS and not name.startswith((".", *_OTHER_RUNTIMES)) and path.is_file():
            found.update(f"{len(name.encode())} {name} {path.stat().st_size} ".encode())
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _longer_than_read(model: Any, texts: list[str]) -> int:
    """Count the texts that have more tokens than the model reads; 0 where it does not say."""
    limit, tokenizer = getattr(model, "max_seq_length", None), getattr(model, "tokenizer", None)
    if not isinstance(limit, int) or not callable(tokenizer):
        return 0
    long = [text for text in texts if len(text.encode()) > limit - 2]  # no tokenizer makes more tokens than bytes
    if not long:
        return 0
    tokens: Any = tokenizer(long, truncation=False, padding=False, verbose=False)
    return sum(len(ids) > limit for ids in tokens["input_ids"])


def _first_line(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def make_embedder(config: ScoreConfig) -> Embedder:
    """Make the embedder that a configuration describes: finds the model's files and digests them.

    Raises ConfigError where the extra is not installed, ModelError for a model that is not there.
    """
    name = config.embed or ""
    if find_spec("sentence_transformers") is None:
        raise ConfigError(
            f"--embed {name}", "sentence-transformers is not installed", remedy="pip install 'sft-toolkit[embed]'"
        )
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
            raise ModelError(f"--embed {name}", "no modules.json in the folder", "a sentence-transformers model")
        return Embedder(config, folder, folder.resolve().name)
    return Embedder(config, _from_hub(name), name)


def _from_hub(name: str) -> Path:
    """Give the folder of a hub model: from the cache where it is there, else downloaded."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 # only models of the hub need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415 # likewise

    where, expected = f"--embed {name}", "a model's folder or a hub id"
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(where, "no such folder", expected)
    ignored = [f"{other}*" for other in _OTHER_RUNTIMES]
    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        try:
            return Path(snapshot_download(repository, ignore_patterns=ignored, local_files_only=True))
        except LocalEntryNotFoundError:
            return Path(snapshot_download(repository, ignore_patterns=ignored))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, httpx.HTTPError) as error:
        found = f"no such folder, and the hub does not give it ({_first_line(error)})"
        remedy = "check the name and the network, or download it and give the folder"
        raise ModelError(where, found, expected, remedy) from error
