"""What a step uses of the machine, on operations with known amounts."""

import torch

from occsora_sim.commands import peers
from occsora_sim.commands.ceilings import used_by


def test_arithmetic_and_bytes_are_those_of_the_operations():
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    used = used_by(lambda: (a @ b).t())
    assert used == {"flops": 2 * 2 * 3 * 5, "bytes": 4 * (6 + 15 + 10)}, "a view moves nothing"


def test_a_peer_that_is_not_installed_is_left_out_and_one_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", {"nobody": ("no_such_module", "N-v0"), "numpy": ("numpy", "N-v0")})
    (row,) = peers.peer_rates()
    assert row["package"] == "numpy" and "metadrive" in row["failed"] and "steps_per_second" not in row
