import { FLAT } from "./scenery.js";

// Frames of one rollout, those of later pieces behind the earlier ones.
export class Recording {
  constructor(piece) {
    this.meta = piece.meta;
    this.frames = [];
    this.append(piece);
  }

  append(piece) {
    const [count, nx, ny] = piece.codes.shape, nz = piece.palette.shape[1];
    const tops = new Int16Array(piece.palette.shape[0]).fill(-1);  // ground's uppermost layer, and one above it
    for (let p = 0; p < tops.length; p++)
      for (let z = 0; z < nz; z++) if (FLAT[piece.palette.data[p * nz + z]]) tops[p] = z + 1;
    const rows = (array, k) => Array.from({ length: array.shape[1] }, (_, i) => {
      const size = array.shape[2], at = (k * array.shape[1] + i) * size;
      return array.data.subarray(at, at + size);
    });
    for (let k = 0; k < count; k++) {
      const frame = {
        codes: piece.codes.data.subarray(k * nx * ny, (k + 1) * nx * ny),
        palette: piece.palette.data, tops, nz,
        pose: Array.from(piece.ego_pose.data.subarray(3 * k, 3 * k + 3)),
        planned: rows(piece.planned, k).filter((p) => p.every(Number.isFinite)),
        terms: piece.meta.terms[k] ?? {},
        users: new Map(),
      };
      if (piece.user_pose) {
        const n = piece.user_pose.shape[1], poses = rows(piece.user_pose, k), sizes = rows(piece.user_size, k);
        const velocities = rows(piece.user_velocity, k);
        for (let i = 0; i < n; i++)
          if (piece.user_valid.data[k * n + i]) {
            const id = piece.user_id.data[k * n + i], velocity = velocities[i];
            frame.users.set(id, {
              id, velocity, pose: Array.from(poses[i]), size: sizes[i], label: piece.user_label.data[k * n + i],
              speed: Math.hypot(velocity[0], velocity[1]),
            });
          }
      }
      frame.usual = this.usualGround(frame);
      this.frames.push(frame);
    }
    this.route = Array.from({ length: piece.route.shape[0] }, (_, i) => piece.route.data.subarray(2 * i, 2 * i + 2))
      .filter((p) => p.every(Number.isFinite));
    if (Object.keys(piece.meta.score).length) this.meta = { ...this.meta, score: piece.meta.score };
  }

  get seconds() { return (this.frames.length - 1) * this.meta.frame_seconds; }

  usualGround(frame) {
    const counts = new Map();
    for (const code of frame.codes) if (frame.tops[code] > 0) counts.set(frame.tops[code], (counts.get(frame.tops[code]) ?? 0) + 1);
    let best = [Math.floor(-this.meta.grid.lower[2] / this.meta.grid.voxel) + 1, 0];
    for (const entry of counts) if (entry[1] > best[1]) best = entry;
    return best[0];
  }

  // Height [m] of the ground's upper surface at (x, y) of a frame.
  ground(frame, x, y) {
    const { shape, voxel, lower } = this.meta.grid;
    const i = Math.floor((x - lower[0]) / voxel), j = Math.floor((y - lower[1]) / voxel);
    const top = i >= 0 && j >= 0 && i < shape[0] && j < shape[1] ? frame.tops[frame.codes[i * shape[1] + j]] : -1;
    return (top > 0 ? top : frame.usual) * voxel + lower[2];
  }

  // The labels of frame k as an array (x, y, z).
  labels(k) {
    const { codes, palette, nz } = this.frames[k];
    const out = new Uint8Array(codes.length * nz);
    for (let i = 0; i < codes.length; i++) out.set(palette.subarray(codes[i] * nz, (codes[i] + 1) * nz), i * nz);
    return out;
  }
}
