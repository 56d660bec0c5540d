"""Contracts of embeddings: a vector per text, asked once; diversity and nearest from all rows; pairs told, not lost."""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate.quality import embed
from curate.quality.embed import Embedder, embedded_text, folder_digest, make_embedder, stored_vectors
from curate.quality.neighbours import SCALE
from curate.quality.score import score_stage
from curate.quality.scorer import ROW_COLUMNS, Scorer
from curate.store import Store
from schemas.config import ScoreConfig
from schemas.errors import ConfigError, ModelError
from schemas.reasons import REASONS
from tests.curate.conftest import chat, make_dataset, run_on, text_frame, turns, view, with_stage

WORDS = [*("red", "green", "blue", "cat", "dog", "house", "tree", "sea", "sand", "wind"), *("what", "is", "a", "the")]
UNKNOWN = "[UNK]"
WIDTH = 16

Row = dict[str, Any]


def save_static_model(folder: Path, weights: np.ndarray[Any, Any] | None = None, seed: int = 0) -> Path:
    """A bag of random word vectors, saved as sentence-transformers saves its models."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({UNKNOWN: 0, **{w: i for i, w in enumerate(WORDS, 1)}}, UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if weights is None:
        weights = np.random.default_rng(seed).standard_normal((len(WORDS) + 1, WIDTH))
        weights[0] = 0.0  # what it does not know has no direction
    bag = StaticEmbedding(words, embedding_weights=weights.astype(np.float32))
    SentenceTransformer(modules=[bag], device="cpu").save(str(folder), create_model_card=False)
    return folder


def save_bert(folder: Path, *, longest: int = 24) -> Path:
    """A BERT of two small layers with random weights, as transformers saves it: no sentence-transformers files."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(WORDS) + 5, max_position_embeddings=longest, **sizes)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=longest).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_static_model(tmp_path_factory.mktemp("static") / "bag")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert") / "small")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The model libraries write to the log; tests read only what we write."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def some_rows(count: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)

    def words(n: int) -> str:
        return " ".join(WORDS[k] for k in rng.integers(0, len(WORDS), n))

    return [chat(words(rng.integers(1, 6)), words(rng.integers(1, 12))) for _ in range(count)]


def frame(rows: list[Row]) -> pl.DataFrame:
    return text_frame(rows, "test").select(ROW_COLUMNS)


def embedder(model: Path, **given: Any) -> Embedder:
    return make_embedder(ScoreConfig(embed=str(model), device="cpu", **given))


def vectors(scorer: Embedder, rows: pl.DataFrame) -> np.ndarray[Any, Any]:
    """The vectors as floats, in the order of the rows."""
    said = pl.concat(list(scorer.score(rows)))
    assert said.height == rows.height
    return np.array(rows.join(said, on="content_hash", maintain_order="left")["vector"].to_list(), float) / SCALE


def finished(scorer: Embedder, rows: pl.DataFrame, quality: list[float] | None = None) -> pl.DataFrame:
    said = pl.concat(list(scorer.score(rows.unique("content_hash", maintain_order=True)))).drop("retry")
    facts = rows.select(
        "id", "source", "content_hash", quality=pl.Series(quality or [None] * rows.height, dtype=pl.Float32)
    )
    return scorer.finish(facts.join(said, on="content_hash", how="left", maintain_order="left"))


# vectors --------------------------------------------------------------------------------------------------------------


def test_a_vector_is_the_models_own_normalised_whatever_the_batch(model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    rows = some_rows(50)
    own = SentenceTransformer(str(model), device="cpu").encode(
        [embedded_text({**r, "id": "", "source": "", "context": None, "tools": None}) for r in rows]
    )
    own = own / np.linalg.norm(own, axis=1, keepdims=True)
    for batch in (1, 7, 64):
        found = vectors(embedder(model, embed_batch=batch), frame(rows))
        assert np.abs(found - own).max() <= 0.5 / SCALE + 1e-6


def test_a_transformer_without_sentence_files_is_averaged_and_told(bert: Path) -> None:
    scorer = embedder(bert)
    found = vectors(scorer, frame(some_rows(5)))
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)
    assert any("no sentence-transformers model" in note for note in scorer.notes())


def test_texts_that_the_model_does_not_read_to_the_end_are_counted(bert: Path) -> None:
    just, more = " ".join(["red"] * 21), " ".join(["red"] * 22)  # with question, [CLS], [SEP]: 24 and 25 tokens
    scorer = embedder(bert)
    list(scorer.score(frame([chat("cat", just), chat("dog", more), chat("sea", "wind")])))
    assert [note for note in scorer.notes() if note.endswith(": 1")], scorer.notes()


def test_a_text_without_direction_has_no_vector_and_no_neighbour(model: Path) -> None:
    rows = frame([chat("red", "cat"), chat("zzz", "qqq"), chat("red", "dog")])
    found = finished(embedder(model), rows)
    assert found["diversity"].is_null().to_list() == [False, True, False]
    assert found["nearest"].to_list() == [rows["id"][2], None, rows["id"][0]]


def test_a_text_is_the_turns_in_order_with_the_context_and_without_the_system_prompt() -> None:
    row = text_frame(
        [
            turns(
                ("system", "Be brief."),
                ("user", "What?"),
                ("assistant", "That."),
                ("user", " "),
                ("assistant", "Yes."),
                context="Look here.",
            )
        ],
        "test",
    ).row(0, named=True)
    assert embedded_text(row) == "What?\n\nLook here.\n\nThat.\n\nYes."


# diversity, nearest and near-duplicates -------------------------------------------------------------------------------


def test_diversity_and_nearest_are_those_of_brute_force(model: Path) -> None:
    rows = frame(some_rows(60))
    units = vectors(embedder(model), rows)
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    cosine = units @ units.T
    np.fill_diagonal(cosine, -2.0)
    found = finished(embedder(model), rows)
    assert np.allclose(found["diversity"].to_numpy(), 1.0 - cosine.max(axis=1), atol=1e-6)
    place = {row: i for i, row in enumerate(rows["id"])}
    for i, nearest in enumerate(found["nearest"]):
        assert cosine[i, place[nearest]] == pytest.approx(cosine[i].max(), abs=1e-6)
        assert place[nearest] != i


def test_the_order_of_rows_changes_nothing_among_equals_neither(model: Path) -> None:
    rows = frame(some_rows(40) + 5 * [chat("red", "cat")])
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=3)
    one, other = (
        finished(embedder(model, semantic_action="reject"), r).insert_column(0, r["id"]) for r in (rows, shuffled)
    )
    assert one.sort("id").equals(other.sort("id"))


@pytest.mark.parametrize("count", [0, 1])
def test_a_row_alone_has_no_diversity(model: Path, count: int) -> None:
    rows = frame(some_rows(1)).head(count)
    facts = rows.select("id", "source", "content_hash", quality=pl.lit(None, pl.Float32))
    said = pl.Series("vector", [[SCALE] + [0] * 15] * count, dtype=pl.List(pl.Int16))
    found = embedder(model, semantic_action="reject").finish(facts.with_columns(said))
    assert found.height == count
    assert found.null_count().row(0) == (count,) * 4


def test_rows_with_the_same_text_are_each_others_nearest(model: Path) -> None:
    rows = frame([chat("red", "cat"), chat("sea", "wind"), chat("red", "cat", context=" ")])
    found = finished(embedder(model), rows)
    assert found["nearest"][0] == rows["id"][2]
    assert found["nearest"][2] == rows["id"][0]
    assert found["diversity"][0] == 0.0


ALIKE = [
    chat("red green blue cat", "dog house tree"),
    chat("red green blue cat", "dog house tree tree"),
    chat("sand", "wind"),
]


def test_near_duplicates_are_told_and_stay_by_default(model: Path) -> None:
    scorer = embedder(model, embed_threshold=0.9)
    found = finished(scorer, frame(ALIKE))
    assert found.columns == ["diversity", "nearest"]
    (note,) = scorer.notes()
    assert ": 1, all rows stay; such as " in note


def test_of_two_near_duplicates_the_better_one_stays_where_asked_for(model: Path) -> None:
    rows = frame(ALIKE)
    found = finished(embedder(model, embed_threshold=0.9, semantic_action="reject"), rows, quality=[0.2, 0.7, 0.1])
    assert found["verdict"].to_list() == ["duplicate:semantic", None, None]
    cosine = 1.0 - found["diversity"][0]
    assert found["detail"][0] == f"cosine {round(float(np.float32(cosine)), 3)} with {rows['id'][1]} (test)"
    assert "duplicate:semantic" in REASONS


def test_without_a_quality_the_smaller_id_stays(model: Path) -> None:
    rows = frame(ALIKE)
    found = finished(embedder(model, embed_threshold=0.9, semantic_action="reject"), rows)
    goes = rows["id"][:2].arg_max()
    assert [i for i, verdict in enumerate(found["verdict"]) if verdict] == [goes]


def test_a_pair_just_at_the_threshold_counts_and_just_below_does_not(model: Path) -> None:
    cosine = 1.0 - float(finished(embedder(model), frame(ALIKE))["diversity"][0])
    for threshold, pairs in ((cosine - 1e-5, ": 1, "), (cosine + 1e-5, ": none")):
        scorer = embedder(model, embed_threshold=threshold)
        finished(scorer, frame(ALIKE))
        assert pairs in scorer.notes()[0]


def test_too_many_pairs_to_decide_are_refused_and_can_still_be_told(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "MOST_PAIRS", 0)
    finished(embedder(model, embed_threshold=0.9), frame(ALIKE))
    with pytest.raises(ConfigError, match=r"--embed-threshold 0\.9: 1 pairs of rows reach it"):
        finished(embedder(model, embed_threshold=0.9, semantic_action="reject"), frame(ALIKE))


# as a stage -----------------------------------------------------------------------------------------------------------


def run(store: Store, dataset: Any, model: Path, **given: Any) -> Any:
    config = ScoreConfig(embed=str(model), device="cpu", **given)
    return run_on(store, dataset, score_stage([make_embedder(config)]), config)


def test_the_stage_keeps_the_vectors_and_asks_for_each_text_once(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    own = Embedder.score

    def counted(self: Embedder, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        asked.append(rows.height)
        return own(self, rows)

    monkeypatch.setattr(Embedder, "score", counted)
    rows = some_rows(30)
    after, _ = run(store, make_dataset(store, {"a": rows[:20]}), model)
    grown, _ = run(store, make_dataset(store, {"a": rows[:20], "b": rows[20:]}), model)
    assert sum(asked) == 30
    for dataset, count in ((after, 20), (grown, 30)):
        stored = stored_vectors(dataset)
        assert stored is not None
        assert stored.height == count
        assert stored.schema == {"content_hash": pl.String, "vector": pl.Array(pl.Float32, WIDTH)}
        assert np.allclose(np.linalg.norm(stored["vector"].to_numpy(), axis=1), 1.0, atol=1e-6)
        assert set(stored["content_hash"]) == set(view(dataset, "content_hash")["content_hash"])
    assert view(grown, "diversity", "nearest").null_count().row(0) == (0, 0)


def test_a_version_without_embeddings_stores_no_vectors(store: Store) -> None:
    dataset = make_dataset(store, {"a": some_rows(3)})
    assert stored_vectors(dataset) is None
    config = ScoreConfig()
    scored, _ = run_on(store, dataset, score_stage([]), config)
    assert stored_vectors(scored) is None


def test_near_duplicates_are_rejected_by_the_stage_and_twice_is_once(store: Store, model: Path) -> None:
    dataset = make_dataset(store, {"a": ALIKE})
    given = {"semantic_action": "reject", "embed_threshold": 0.9}
    after, first = run(store, dataset, model, **given)
    again, second = run(store, after, model, **given)
    assert [f.sha256 for f in first.files] == [f.sha256 for f in second.files]
    assert view(again, "reject_reason")["reject_reason"].drop_nulls().to_list() == ["duplicate:semantic"]
    assert with_stage(after, second).manifest.id == after.manifest.id


# the model ------------------------------------------------------------------------------------------------------------


def test_it_is_a_scorer(model: Path) -> None:
    scorer: Scorer = embedder(model)
    assert (scorer.name, scorer.reads_tools) == ("embedding", False)
    assert scorer.provenance["model"] == "bag"


def test_the_key_follows_the_weights_and_not_the_folder_or_the_settings(model: Path, tmp_path: Path) -> None:
    same, other = save_static_model(tmp_path / "same"), save_static_model(tmp_path / "other", seed=1)
    (same / "README.md").write_text("A card.")
    assert embedder(same).key == embedder(model).key
    assert embedder(other).key != embedder(model).key
    assert embedder(model, embed_batch=3, embed_threshold=0.5, semantic_action="reject").key == embedder(model).key


def test_the_digest_of_a_folder_follows_names_and_bytes_of_what_counts(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"12")
    (tmp_path / "config.json").write_bytes(b"3")
    first = folder_digest(tmp_path)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.bin").write_bytes(b"9")
    (tmp_path / "README.md").write_bytes(b"9")
    assert folder_digest(tmp_path) == first
    (tmp_path / "config.json").write_bytes(b"4")
    assert folder_digest(tmp_path) != first


def _nothing(folder: Path) -> Path:
    return folder / "absent"


def _empty(folder: Path) -> Path:
    return folder


def _broken(folder: Path) -> Path:
    (folder / "modules.json").write_text("{ not json")
    return folder


def _truncated(folder: Path) -> Path:
    saved = save_static_model(folder / "m")
    weights = next(saved.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:40])
    return saved


@pytest.mark.parametrize("make", [_nothing, _empty, _broken, _truncated])
def test_a_model_that_cannot_be_used_is_one_line(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(ModelError) as caught:
        list(embedder(make(tmp_path)).score(frame(some_rows(2))))
    assert str(caught.value).startswith("--embed ")
    assert "\n" not in str(caught.value)


def test_a_model_with_weights_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    saved = save_static_model(tmp_path / "nan", np.full((len(WORDS) + 1, WIDTH), np.nan))
    with pytest.raises(ModelError, match="no numbers"):
        list(embedder(saved).score(frame(some_rows(2))))


def test_without_the_library_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"sft-toolkit\[embed\]"):
        embedder(model)
    assert importlib.util.find_spec("sentence_transformers")


class Cramped:
    """A model that has memory for `room` texts at a time."""

    def __init__(self, room: int) -> None:
        self.room, self.batches = room, []

    def encode(self, texts: list[str], batch_size: int, **_: Any) -> np.ndarray[Any, Any]:
        self.batches.append(batch_size)
        if batch_size > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return np.tile(np.eye(1, WIDTH, dtype=np.float32), (len(texts), 1))


def test_a_batch_is_halved_where_memory_runs_out_and_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cramped = Cramped(room=3)
    monkeypatch.setattr(Embedder, "_load", lambda _: cramped)
    scorer = embedder(model, embed_batch=16)
    assert pl.concat(list(scorer.score(frame(some_rows(100)))))["vector"].null_count() == 0
    assert cramped.batches[:4] == [16, 8, 4, 2]
    assert set(cramped.batches[3:]) == {2}
    assert [note for note in scorer.notes() if note.startswith("out of memory: 2 texts")]


def test_no_memory_for_a_single_text_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedder, "_load", lambda _: Cramped(room=0))
    with pytest.raises(ModelError, match="too little memory for one text"):
        list(embedder(model).score(frame(some_rows(2))))
