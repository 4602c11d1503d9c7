"""What TensorBoard is shown is what the history holds, and following it changes no training."""

import builtins

import pytest
from resumption import LADDER, assert_same, grey, remains
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pyrovae.errors import InputError
from pyrovae.experiments.tensorboard import FOLDER, TensorBoard
from pyrovae.experiments.training import train


def test_scalars_histograms_and_pictures_of_each_epoch(tmp_path):
    run = train(LADDER, tmp_path / "shown", dataset=grey(), engine="graph", track=TensorBoard(grey()))
    shown = EventAccumulator(str(run.folder / FOLDER), size_guidance={"histograms": 0})
    shown.Reload()
    history = run.history
    bounds = [event.value for event in shown.Scalars("valid_elbo_nats")]
    assert bounds == pytest.approx([row["valid_elbo_nats"] for row in history], rel=1e-6)
    assert [event.value for event in shown.Scalars("kl_by_layer/z1")] == pytest.approx(
        [row["kl_by_layer"]["z1"] for row in history], rel=1e-6
    )
    assert [event.step for event in shown.Histograms("activity_by_unit/z2")] == [row["epoch"] for row in history]
    assert {"reconstructions", "samples", "pseudo-inputs"} <= set(shown.Tags()["images"])
    train(LADDER, tmp_path / "alone", dataset=grey(), engine="graph")
    assert_same(remains(run.folder), remains(tmp_path / "alone"), "followed by TensorBoard")


def test_where_it_is_not_installed_that_is_said(monkeypatch):
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="it is not installed: pip install 'pyrovae\\[tensorboard\\]'"):
        TensorBoard(grey())
