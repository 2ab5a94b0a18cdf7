"""The language models: text, training, ONNX. A second of training, not a trained model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "models"))
    import language

    return language


@pytest.fixture(scope="module")
def corpus():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "models"))
        from texts import load_corpus

        return load_corpus()


@pytest.fixture
def tiny(language: ModuleType):
    from decoder import Size

    return Size("tiny", 16, 1, 2)


@pytest.fixture
def text() -> np.ndarray:
    from texts import encode

    return encode("To be, or not to be, that is the question. " * 100)


def test_text_survives_its_encoding(language: ModuleType) -> None:
    from texts import UNKNOWN, VOCABULARY, decode, encode

    text = "".join(map(chr, range(32, 127))) + "\n"
    tokens = encode(text)
    assert sorted(tokens) == list(range(VOCABULARY))
    assert decode(tokens) == text
    assert encode("\u00e9\x00").tolist() == [UNKNOWN, UNKNOWN]
    assert decode(encode("\ta")) == "        a"


def test_windows_are_spread_over_the_text(language: ModuleType) -> None:
    from texts import windows

    found = windows(np.arange(100), 3, 9)
    assert found[:, 0].tolist() == [0, 45, 90]
    assert (np.diff(found, axis=1) == 1).all()
    with pytest.raises(ValueError, match="no window"):
        windows(np.arange(9), 1, 9)


def test_held_out_text_is_not_in_the_training_text(language: ModuleType, corpus) -> None:
    assert len(corpus.training) > 500_000
    assert 0.01 < len(corpus.held_out) / len(corpus.training) < 0.15
    assert max(corpus.training.max(), corpus.held_out.max()) < 96
    training = corpus.training.tobytes()
    pieces = [corpus.held_out[i : i + 200].tobytes() for i in range(0, len(corpus.held_out), 2000)]
    assert not [piece for piece in pieces if len(piece) == 200 and piece in training]


def test_training_descends_and_repeats_itself(language: ModuleType, tiny, text) -> None:
    settings = language.Settings(steps=40, batch=8, warmup=5, rate=1e-2)
    network, losses = language.train(tiny, settings, text, context=32)
    assert losses[0] == pytest.approx(np.log(96), abs=0.2)
    assert np.mean(losses[-5:]) < 0.75 * losses[0]
    again, losses_again = language.train(tiny, settings, text, context=32)
    assert losses == losses_again
    other, _ = language.train(tiny, dataclasses.replace(settings, seed=8), text, context=32)
    assert torch.equal(network.head.weight, again.head.weight)
    assert not torch.equal(network.head.weight, other.head.weight)


def test_learning_rate_warms_up_and_decays(language: ModuleType) -> None:
    settings = language.Settings(steps=1000, warmup=100, rate=1e-3)
    rates = [settings.rate_at(step, 64) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) == pytest.approx(1e-3) and np.argmax(rates) in (99, 100)
    assert rates[-1] == pytest.approx(1e-4, rel=1e-2)
    assert settings.rate_at(500, 256) == pytest.approx(rates[500] / 2)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 7), (2, 32)])
def test_onnx_is_the_network(language: ModuleType, tiny, batch: int, length: int) -> None:
    from decoder import Decoder, to_onnx

    torch.manual_seed(0)
    network = Decoder(tiny, 96, 32).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3)
    session = onnxruntime.InferenceSession(to_onnx(network).SerializeToString())
    tokens = np.random.default_rng(0).integers(0, 96, (batch, length))
    (got,) = session.run(None, {"tokens": tokens})
    with torch.no_grad():
        wanted = network(torch.from_numpy(tokens)).numpy()
    assert got.shape == (batch, length, 96)
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4)


def test_no_token_sees_a_later_one(language: ModuleType, tiny) -> None:
    from decoder import Decoder

    network = Decoder(tiny, 96, 32).eval()
    tokens = torch.randint(0, 96, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 96
    with torch.no_grad():
        before, after = network(tokens), network(changed)
    assert torch.equal(before[0, :12], after[0, :12])
    assert not torch.equal(before[0, 12:], after[0, 12:])


def test_family_spans_two_decades(language: ModuleType) -> None:
    bodies = [size.body for size in language.FAMILY]
    assert len(bodies) >= 5 and bodies == sorted(bodies)
    assert bodies[0] < 15_000 and bodies[-1] > 1_000_000
    assert all(size.width % size.heads == 0 for size in language.FAMILY)


def test_parameters_are_counted_apart(language: ModuleType, tiny) -> None:
    from decoder import Decoder

    network = Decoder(tiny, 96, 32)
    counts = language.describe(network, tiny)
    assert counts["body"] == 12 * 16 * 16
    assert (counts["embedding"], counts["head"], counts["positions"]) == (1536, 1536, 512)
    total = sum(counts[name] for name in ("body", "embedding", "head", "positions", "norms"))
    assert total == sum(p.numel() for p in network.parameters())


def test_a_folder_is_made_and_kept(
    language: ModuleType, tiny, corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InThisProcess:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, function, *arguments):
            from concurrent.futures import Future

            future: Future = Future()
            future.set_result(function(*arguments))
            return future

    monkeypatch.setattr(language, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(language, "load_corpus", lambda: corpus)
    settings = language.Settings(steps=2, batch=2)
    family = language.make_family(tmp_path, (tiny,), settings, 1)
    made = (tmp_path / "tiny.onnx").stat().st_mtime_ns
    evaluation, calibration = np.load(tmp_path / "eval.npz"), np.load(tmp_path / "calibration.npz")
    assert (evaluation["tokens"][:, 1:] == evaluation["labels"][:, :-1]).all()
    assert calibration["tokens"].shape == (128, 128)
    logits = onnxruntime.InferenceSession(tmp_path / "tiny.onnx").run(
        None, {"tokens": evaluation["tokens"]}
    )[0]
    nats = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).flatten(0, 1), torch.from_numpy(evaluation["labels"]).flatten()
    )
    assert family["models"]["tiny"]["loss"] == pytest.approx(float(nats), abs=1e-4)
    # A second run keeps it; other settings make it anew.
    assert language.make_family(tmp_path, (tiny,), settings, 1) == family
    assert (tmp_path / "tiny.onnx").stat().st_mtime_ns == made
    other = language.make_family(tmp_path, (tiny,), dataclasses.replace(settings, steps=3), 1)
    assert other["settings"]["steps"] == 3
    assert (tmp_path / "tiny.onnx").stat().st_mtime_ns != made
    assert json.loads((tmp_path / "family.json").read_text("utf-8")) == other
