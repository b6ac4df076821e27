"""Which tokens to show together: those that the network is sure of, as MaskGIT has it, or a Halton sequence?

    python experiments/shown_order.py TOWNS ORDER CALLS [--fine]

TOWNS: a file of towns that a training of the ground keeps beside its run (`towns_file`), held apart from it. ORDER:
halton, or sure (with chance, which fades). Tiles ahead of 40 places are drawn; a small network learns on crops of
25.6 m of three towns, as drawn and as recorded, and is asked about the fourth. Prints its AUC, 0.5: it cannot tell.
Without --fine two by two tiles of the plan, from what is behind alone; with it two by two of the ground after the true
plan.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from occsora_sim import counter_random
from occsora_sim.models.ground import outpainter
from occsora_sim.models.ground.canvas import GroundCanvas
from occsora_sim.models.ground.model import GroundModel
from occsora_sim.models.ground.palette import GROUPS, group_of
from occsora_sim.scoring.ground_classifier import ClassifierConfig, auc_over_towns, cross_score
from occsora_sim.training.ground.towns import UNKNOWN, GroundTowns
from occsora_sim.training.ground.towns_file import load_towns
from occsora_sim.worlds.diffusion import load_world

PLACES = 40


def draw_surest(self, codes, known, route, place, key, plan=None, *, steps=4, expected=False, outward=0.0):
    """`Outpainter.draw` with the tokens first of which the network is sure, and chance, which has less and less say."""
    tile, edge = self.config.tile, (self.config.window - self.config.tile) // 2
    inside = slice(edge, edge + tile)
    codes, known = codes.clone(), known.clone()
    table, answers, likely = self.books or (self.table(), self.answers(), self.likely())
    told, half = self.told(route, place, plan)
    total = (~known[:, inside, inside]).flatten(1).sum(-1, keepdim=True)
    chance = counter_random.uniform(key, 0x0B7, steps, tile * tile)
    gumbel = -torch.log(-torch.log(counter_random.uniform(key, 0x0B8, steps, tile * tile)))
    for step in range(steps):
        features = self.look(codes, known, told, half, table)[:, inside, inside]
        p = self.logits(features.flatten(1, 2), answers).float().softmax(-1)
        hidden = ~known[:, inside, inside].flatten(1)
        drawn = likely.draw(p, chance[:, step, :, None])
        rank = (1 - (step + 1) / steps) * gumbel[:, step] - torch.special.entr(p).sum(-1)
        rank = rank.masked_fill(~hidden, -math.inf).argsort(-1, descending=True).argsort(-1)
        left = math.cos(math.pi / 2 * (step + 1) / steps) if step + 1 < steps else 0.0
        shown = ((rank < hidden.sum(-1, keepdim=True) - (total * left).floor()) & hidden).view(-1, tile, tile)
        codes[:, inside, inside] = torch.where(shown, drawn.view_as(shown), codes[:, inside, inside])
        known[:, inside, inside] |= shown
    return codes[:, inside, inside]


def places(towns: GroundTowns, model: GroundModel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kinds (n, 384, 384) from 51.2 m behind to 102.4 m ahead of egos, routes, kinds of places, towns."""
    generator = torch.Generator().manual_seed(0)
    kinds, routes, numbers = [], [], []
    for town in range(len(towns.names)):
        while len(kinds) < (town + 1) * PLACES // len(towns.names):
            ego = towns.egos[town][int(torch.randint(len(towns.egos[town]), (), generator=generator))]
            poses = towns.poses(ego)
            pose = poses[int(torch.randint(len(poses), (), generator=generator))].double()
            heading = torch.stack((pose[2].cos(), pose[2].sin()))
            middle = torch.cat((pose[:2] + 25.6 * heading, pose[2:]))[None]
            cut = towns.cut(torch.tensor([town]), middle, 384, model.config.column)[0]
            if (cut == UNKNOWN).float().mean() < 0.03:
                away = towns.route(ego).double() - pose[:2]
                across = torch.stack((-heading[1], heading[0]))
                kinds.append(model.kinds(towns.palette[cut.long()]))
                routes.append(torch.stack((away @ heading, away @ across), dim=-1).float())
                numbers.append((towns.place(town), town))
    route = torch.nn.utils.rnn.pad_sequence(routes, batch_first=True, padding_value=math.nan)
    place, of = torch.tensor(numbers).unbind(1)
    return torch.stack(kinds), route, place, of


@torch.no_grad()
def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("towns", type=Path)
    parser.add_argument("order", choices=("halton", "sure"))
    parser.add_argument("calls", type=int)
    parser.add_argument("--fine", action="store_true")
    asked = parser.parse_args()
    if asked.order == "sure":
        outpainter.Outpainter.draw = draw_surest  # type: ignore[method-assign]
    model = load_world().ground
    kinds, route, place, town = places(load_towns(asked.towns), model)
    n = len(kinds)
    codes = {False: model.tokenizer.encode(kinds), True: model.plan_of(kinds)}
    canvas = GroundCanvas.empty(torch.zeros(n, 3), model.config.token, model.config.tile)
    seen = {plan: torch.arange(codes[plan].shape[1]) < codes[plan].shape[1] // 3 for plan in codes}
    seen[True] = seen[True] | asked.fine
    for plan in codes:
        corner = torch.tensor([-16, -24]) * (1 if plan else 2)
        known = seen[plan][None, None, :, None].expand(n, 1, -1, codes[plan].shape[2])
        layer = canvas.layer(plan=plan).put(codes[plan][:, None], known, corner.expand(n, 1, 2))
        canvas = replace(canvas, plan=layer) if plan else replace(canvas, fine=layer)
    plan, begin = not asked.fine, time.process_time()
    for x, y in ((0, 0), (0, -1), (1, 0), (1, -1)):
        tile = torch.tensor([x, y]).expand(n, 2)
        drawn = model._tile(canvas, tile, route, place, torch.arange(n), plan=plan, steps=asked.calls)
        canvas = canvas.with_tile(drawn, torch.ones(n, dtype=torch.bool), tile, plan=plan)
    seconds = time.process_time() - begin
    side = 2 * model.config.tile
    layer, first = canvas.layer(plan=plan), canvas.first(plan=plan)
    got = layer.gather(torch.tensor([0, -side // 2]).expand(n, 1, 2), first, side)[0][:, 0]
    ahead = slice(side // 2, side // 2 + side) if plan else slice(side, 2 * side)
    beside = slice(side // 4, side // 4 + side) if plan else slice(side, 2 * side)
    both = [groups(model, part, plan) for part in (got, codes[plan][:, ahead, beside])]
    for cell in (1, 2) if plan else (1, 4, 8):
        crops = [crops_of(commonest(part, cell), (16 if plan else 64) // cell) for part in both]
        of = town.repeat_interleave(len(crops[0]) // n)
        told = auc(crops, of)
        print(
            f"{asked.order} {asked.calls} calls, cells of {cell * (1.6 if plan else 0.4):.1f} m: AUC {told:.3f}"
        )
    print(f"{seconds:.0f} CPU seconds")


def groups(model: GroundModel, codes: Tensor, plan: bool) -> Tensor:
    """Groups (n, x, y) uint8 of what codes (n, x, y) hold."""
    if not plan:
        return group_of(model.palette).to(torch.uint8)[model.tokenizer.decode(codes).int()]
    cells = model.plan.contents[codes].unflatten(-1, (2, 2)).permute(0, 1, 3, 2, 4)
    return cells.reshape(len(codes), 2 * codes.shape[1], 2 * codes.shape[2])


def commonest(image: Tensor, cell: int) -> Tensor:
    """The commonest group of cells of so many pixels along an edge."""
    parts = image.unfold(1, cell, cell).unfold(2, cell, cell).flatten(3)
    return (
        torch.stack([(parts == group).sum(-1) for group in range(len(GROUPS))], dim=-1)
        .argmax(-1)
        .to(torch.uint8)
    )


def crops_of(image: Tensor, side: int) -> Tensor:
    """Crops (m, side, side) of images (n, x, y), half of each shared with the next."""
    return image.unfold(1, side, side // 2).unfold(2, side, side // 2).reshape(-1, side, side)


def auc(crops: list[Tensor], of: Tensor) -> float:
    """Mean over two seeds; each town judged by a network trained on the others."""
    config, everything, found = ClassifierConfig(folds=4), torch.ones(len(of), dtype=torch.bool), []
    for seed in range(2):
        with torch.enable_grad():
            scored = cross_score(crops[0], crops[1], (of, of), config, seed)
        told = scored and auc_over_towns(scored, (of, of), (everything, everything))
        assert told
        found.append(float(told["auc"]))
    return sum(found) / len(found)


if __name__ == "__main__":
    main()
