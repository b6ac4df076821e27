"""Claims on what is known exactly: columns, the record of what stood still, and road users carried along."""

import math

import torch

from occsora_sim.geometry import compose, to_world
from occsora_sim.grid import CAR, DRIVEABLE, FREE, MANMADE, TERRAIN, VEGETATION, Grid
from occsora_sim.models.columns import (
    UNSEEN,
    distinct_columns,
    is_dynamic,
    without_road_users,
)
from occsora_sim.models.compensated_tokenizer import (
    KEEP,
    NEW_VEGETATION,
    CompensatedTokenizer,
    CompensatedTokenizerConfig,
)
from occsora_sim.models.context import AUXILIARY, Context, route_mask, unseen
from occsora_sim.models.record import Record

GRID = Grid(shape=(32, 32, 16), voxel=0.5, lower=(-8.0, -8.0, -1.0))


def street() -> torch.Tensor:
    """(1, x, y, z): a road along x between two walls, trees of unlike heights behind."""
    labels = torch.full((1, *GRID.shape), FREE, dtype=torch.uint8)
    labels[..., 2] = DRIVEABLE
    labels[:, :, :6, 2:9] = MANMADE
    labels[:, ::5, 28:, 2:12] = VEGETATION
    labels[:, :, 25:28, 2] = TERRAIN
    return labels


def test_distinct_columns_give_back_the_labels():
    labels = torch.randint(
        0, 18, (2, 8, 8, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels[1] = labels[0]
    palette, index = distinct_columns(labels)
    assert len(palette) == 64
    assert torch.equal(palette[index].view_as(labels), labels)


def test_road_users_are_told_from_what_stands():
    labels = torch.arange(18, dtype=torch.uint8)
    assert labels[is_dynamic(labels)].tolist() == [2, 3, 4, 5, 6, 7, 9, 10]
    assert not is_dynamic(torch.tensor([UNSEEN], dtype=torch.uint8)).any()


def test_the_record_gives_back_the_first_frame_exactly():
    labels, pose = street(), torch.tensor([[30.0, -7.0, 0.7]])
    record = Record.empty(pose, GRID).write(labels, pose, GRID)
    assert torch.equal(record.read(pose[:, None], GRID)[:, 0], labels)


def test_the_record_shifts_by_whole_voxels_exactly_and_leaves_new_ground_unseen():
    labels, pose = street(), torch.tensor([[0.0, 0.0, 0.0]])
    record = Record.empty(pose, GRID).write(labels, pose, GRID)
    ahead = record.read(torch.tensor([[[2.0, 0.0, 0.0]]]), GRID)[:, 0]
    assert torch.equal(ahead[:, :-4], labels[:, 4:])
    assert (ahead[:, -4:] == UNSEEN).all()


def test_what_was_recorded_first_stays():
    pose = torch.zeros(1, 3)
    record = Record.empty(pose, GRID).write(street(), pose, GRID)
    again = record.write(torch.full_like(street(), VEGETATION), pose, GRID)
    assert torch.equal(again.read(pose[:, None], GRID)[:, 0], street())


def sampled(pose: torch.Tensor) -> torch.Tensor:
    """What a grid at `pose` (1, 3) shows of a world with a slanting wall, a post and a fence thinner than a voxel."""
    x, y = to_world(GRID.centres_xy(), pose[:, None, None]).unbind(-1)
    labels = torch.full((1, *GRID.shape), FREE, dtype=torch.uint8)
    labels[..., 2] = DRIVEABLE
    for inside in (x + 0.3 * y > 5, (x - 2).abs() + (y - 1).abs() < 0.3, ((y + 4) % 1.0 < 0.3) & (y < -3)):
        labels[inside] = torch.where(torch.arange(16) >= 3, MANMADE, labels[inside])
    return labels


def measured(poses: torch.Tensor) -> Record:
    """A record of measured frames at poses (n, 3), the first one's axes."""
    record = Record.empty(poses[:1], GRID)
    for pose in poses.split(1):
        record = record.write(sampled(pose), pose, GRID, measured=True)
    return record


def test_each_of_several_measured_frames_comes_back_from_the_record_where_it_is_nearest():
    first = torch.tensor([[3.0, 1.0, 0.4]])
    across = compose(first, torch.tensor([[0.25, 0.25, 0.0]]))  # between the voxels of the first, both ways
    record = measured(torch.cat((first, across)))
    for pose in (first, across):
        assert torch.equal(
            record.read(pose[:, None], GRID)[:, 0][:, 2:-2, 2:-2], sampled(pose)[:, 2:-2, 2:-2]
        )
    assert not torch.equal(measured(first).read(across[:, None], GRID)[:, 0], sampled(across))


def test_measured_frames_together_tell_a_street_finer_than_the_newest_alone():
    poses = torch.tensor([[0.0, 0.0, 0.0], [-0.63, 0.02, 0.03], [-1.21, 0.11, 0.07], [-1.86, 0.3, 0.1]])
    ahead = torch.tensor([[0.7, -0.1, -0.05]])
    truth, wrong = sampled(ahead), []
    shown = measured(poses[:1]).read(ahead[:, None], GRID)[:, 0] != UNSEEN
    for many in (1, 2, 4):
        seen = measured(poses[:many]).read(ahead[:, None], GRID)[:, 0]
        wrong.append(int(((seen != truth) & shown).sum()))
    assert wrong[2] < wrong[1] < wrong[0] and wrong[2] < 0.75 * wrong[0]


def test_the_newest_measured_frame_stays_exact_whatever_older_ones_say():
    poses = torch.tensor([[1.0, 2.0, 0.3], [0.9, 2.1, 0.28], [0.7, 1.8, 0.35], [0.52, 1.9, 0.2]])
    assert torch.equal(measured(poses).read(poses[:1, None], GRID)[:, 0], sampled(poses[:1]))


def test_a_generated_frame_refines_nothing_that_is_there():
    poses = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.25, 0.0]])
    record = measured(poses[:1])
    again = record.write(torch.full_like(street(), VEGETATION), poses[1:], GRID)
    seen = record.read(poses[1:, None], GRID)
    old = seen != UNSEEN
    assert torch.equal(again.read(poses[1:, None], GRID)[old], seen[old])


def test_writing_leaves_the_old_record_as_it_is():
    pose = torch.zeros(1, 3)
    blank = Record.empty(pose, GRID)
    blank.write(street(), pose, GRID)
    assert (blank.read(pose[:, None], GRID) == UNSEEN).all()


def test_the_same_street_is_there_on_return_after_many_steps():
    pose = torch.tensor([[0.0, 0.0, 0.0]])
    first = street()
    record = Record.empty(pose, GRID).write(first, pose, GRID)
    for step in range(1, 60):  # a circle of 3 m radius, back to the start
        angle = 2 * math.pi * step / 60
        here = torch.tensor([[3 * math.sin(angle), 3 - 3 * math.cos(angle), angle]])
        seen = record.read(here[:, None], GRID)[:, 0]
        record = record.write(torch.where(seen == UNSEEN, torch.full_like(seen, TERRAIN), seen), here, GRID)
    assert torch.equal(record.read(pose[:, None], GRID)[:, 0], first)


def test_the_canvas_wraps_and_forgets_what_is_far_behind():
    pose = torch.zeros(1, 3)
    record = Record.empty(pose, GRID, extent=40.0).write(street(), pose, GRID)
    far = torch.tensor([[40.0, 0.0, 0.0]])  # the same canvas cells, one lap on
    assert (record.read(far[:, None], GRID) == UNSEEN).all()
    record = record.write(torch.full_like(street(), TERRAIN), far, GRID)
    assert (record.read(far[:, None], GRID) == TERRAIN).all()
    assert (record.read(pose[:, None], GRID) == UNSEEN).all()


def test_the_route_mask_lies_where_the_route_is():
    route = torch.stack((torch.arange(-20.0, 20.0), torch.full((40,), 2.1)), dim=-1)[None]
    route[:, -3:] = float("nan")
    mask = route_mask(route, torch.zeros(1, 1, 3), GRID)[0, 0]
    assert mask[:, 20].all() and mask[:, 18:23].all()
    assert not mask[:, :17].any() and not mask[:, 24:].any()


def test_decoding_equals_the_argmax_of_the_logits_and_keeps_what_is_recorded():
    torch.manual_seed(0)
    tokenizer = CompensatedTokenizer(CompensatedTokenizerConfig(column=8, width=8, latent=4), GRID)
    for parameter in tokenizer.parameters():  # the gates too must be anything, not their start
        torch.nn.init.normal_(parameter, std=0.3)
    labels = street()
    labels[:, 10:18, 14:18, 3:6] = CAR
    static = without_road_users(labels)
    static[:, 20:] = UNSEEN
    prior = torch.where(is_dynamic(labels), labels, static)
    known = Context(
        static=static[:, None], prior=prior[:, None], auxiliary=torch.zeros(1, 1, AUXILIARY, 32, 32)
    )
    features = tokenizer.context(known)
    latent = torch.randn(1, 4, 4, 4)
    drawn = tokenizer.decode(latent, known, features)
    columns = tokenizer.decode_features(latent, features).flatten(0, 2)
    logits = tokenizer.logits(columns, static.view(-1, 16), prior.view(-1, 16), KEEP)
    likeliest = logits.argmax(-1)
    logits[unseen(static).flatten(), :, VEGETATION] += NEW_VEGETATION
    wanted = logits.argmax(-1)
    new = unseen(static).flatten()
    assert torch.equal(drawn.view(-1, 16)[new].long(), wanted[new])
    grown = wanted != likeliest
    assert grown.any() and (wanted[grown] == VEGETATION).all()
    assert torch.equal(drawn.view(-1, 16)[~new], static.view(-1, 16)[~new])


def test_distinct_columns_gives_every_column_back_even_where_differences_could_cancel():
    # Bytes of the two words move against one another by 3 and 1: a linear hash of related factors merges them.
    labels = torch.randint(0, 18, (1, 64, 64, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels[0, 0, 0] = 5
    labels[0, 0, 1] = labels[0, 0, 0]
    labels[0, 0, 1, 3] += 3
    labels[0, 0, 1, 11] -= 1
    palette, index = distinct_columns(labels)
    assert torch.equal(palette[index], labels.view(-1, 16))
    assert len(palette) == len(torch.unique(labels.view(-1, 16), dim=0))
