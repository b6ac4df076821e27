// Voxels as faces: those that are exposed, equal neighbours as one, after rendering/mesh.py.
import { AMBIENT, FULL, OCCLUSION, SHADES, lights } from "./light.js";
import { FREE, PALETTE, THREE, scenery } from "./scenery.js";

const BLEED = 0.008;  // [voxels] that faces reach over their edges, so that no gap shows where they meet
const WALL = 100, CROWN = 200;  // what the shader bands, and lightens upwards

class Faces {
  constructor(room) { this.points = new Float32Array(12 * room); this.colours = new Uint8Array(16 * room); this.count = 0; }

  grow() {
    const { points, colours } = this;
    (this.points = new Float32Array(2 * points.length)).set(points);
    (this.colours = new Uint8Array(2 * colours.length)).set(colours);
  }

  // A rectangle at (x, y, z) [voxels] that looks along an axis; lights are those of its corners.
  quad(place, axis, first, second, front, wide, high, label, lights, look) {
    if (16 * (this.count + 1) > this.colours.length) this.grow();
    const flip = lights[0] + lights[2] < lights[1] + lights[3] ? 1 : 0;  // split along the brighter diagonal
    for (let v = 0; v < 4; v++) {
      const p = 12 * this.count + 3 * v, c = 16 * this.count + 4 * v, from = (v + flip) & 3, light = lights[from];
      this.points[p + axis] = place[axis] + front;
      this.points[p + first] = place[first] + (from === 1 || from === 2 ? wide + BLEED : -BLEED);
      this.points[p + second] = place[second] + (from > 1 ? high + BLEED : -BLEED);
      for (let a = 0; a < 3; a++) this.colours[c + a] = Math.min(255, PALETTE[3 * label + a] * light + 0.5);
      this.colours[c + 3] = look;
    }
    this.count++;
  }

  geometry() {
    const geometry = new THREE.BufferGeometry(), index = new Uint32Array(6 * this.count);
    for (let f = 0, i = 0, v = 0; f < this.count; f++, v += 4) {
      index[i++] = v; index[i++] = v + 1; index[i++] = v + 2;
      index[i++] = v; index[i++] = v + 2; index[i++] = v + 3;
    }
    geometry.setAttribute("position", new THREE.BufferAttribute(this.points.slice(0, 12 * this.count), 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(this.colours.slice(0, 16 * this.count), 4, true));
    geometry.setIndex(new THREE.BufferAttribute(index, 1));
    return geometry;
  }
}

const TILE = 25;  // [voxels] square; no face reaches over one, so that tiles out of sight cost nothing

// Exposed faces of labels (nx, ny, nz), lit by a sun towards (3,) and darkened in corners; equal neighbours are one face.
// Returns up to two geometries for each tile: buildings and vegetation, and the rest.
export function mesh(labels, nx, ny, nz, sun) {
  const sy = nz + 2, sx = (ny + 2) * sy, cells = new Uint8Array((nx + 2) * sx), inside = [];
  for (let x = 0, from = 0; x < nx; x++)
    for (let y = 0; y < ny; y++)
      for (let z = 0, to = (x + 1) * sx + (y + 1) * sy + 1; z < nz; z++, from++, to++)
        if (labels[from] !== FREE) { cells[to] = labels[from] + 1; inside.push(to); }
  const light = lights(cells, nx, ny, nz, sun);
  const across = Math.ceil(ny / TILE), tiles = Array.from({ length: 2 * Math.ceil(nx / TILE) * across }, () => new Faces(64));
  const keys = new Uint32Array(cells.length), seen = new Uint32Array(inside.length);
  const place = [0, 0, 0], corner = [0, 0, 0, 0], values = new Float64Array(16), strides = [sx, sy, 1];
  const { crowns, walls } = scenery.meta;
  for (let d = 0; d < 5; d++) {
    const axis = d >> 1, front = d & 1 ? 0 : 1, sign = front ? 1 : -1, step = sign * strides[axis];
    const first = (axis + (front ? 1 : 2)) % 3, second = (axis + (front ? 2 : 1)) % 3;  // corners run counter-clockwise
    const sf = strides[first], ss = strides[second], towards = Math.max(0, sign * sun[axis]) * FULL;
    for (let free = 1; free < 5; free++)
      for (let sunny = 0; sunny <= free; sunny++)
        values[SHADES[16 * sunny + free]] = AMBIENT[d] * OCCLUSION[free] + towards * (d < 4 ? 1 : sunny / free);
    let many = 0;
    for (let i = 0; i < inside.length; i++) {
      const cell = inside[i], at = cell + step, centre = light[at];
      if (!centre) continue;
      // Each sum holds free cells around a corner in its low half, those in the sun in its high half.
      const mask = d < 4 ? 15 : 255;  // shadows fall on what lies flat alone: walls in one light are fewer faces
      const left = centre + light[at - sf], right = centre + light[at + sf], below = light[at - ss], above = light[at + ss];
      const a = SHADES[left + below + light[at - sf - ss] & mask], b = SHADES[right + below + light[at + sf - ss] & mask];
      const c = SHADES[right + above + light[at + sf + ss] & mask], e = SHADES[left + above + light[at - sf + ss] & mask];
      keys[cell] = cells[cell] << 16 | a << 12 | b << 8 | c << 4 | e;
      seen[many++] = cell;
    }
    for (let i = 0; i < many; i++) {  // in the order of cells, so what a face can grow over comes later
      const cell = seen[i], key = keys[cell], a = key >> 12 & 15, b = key >> 8 & 15, c = key >> 4 & 15, e = key & 15;
      if (!key) continue;
      place[0] = Math.floor(cell / sx) - 1; place[1] = Math.floor((cell % sx) / sy) - 1; place[2] = (cell % sy) - 1;
      const most = (axis) => (axis === 2 ? nz : TILE - place[axis] % TILE), widest = most(first), highest = most(second);
      let wide = 1, high = 1;
      if (a === b && c === e) while (wide < widest && keys[cell + wide * sf] === key) wide++;
      if (a === e && b === c)
        grow: for (; high < highest; high++)
          for (let j = 0; j < wide; j++) if (keys[cell + high * ss + j * sf] !== key) break grow;
      for (let k = 0; k < high; k++) for (let j = 0; j < wide; j++) keys[cell + k * ss + j * sf] = 0;
      corner[0] = values[a]; corner[1] = values[b]; corner[2] = values[c]; corner[3] = values[e];
      const label = cells[cell] - 1, look = label === crowns ? CROWN : label === walls && d < 4 ? WALL : 0;
      const tall = label === crowns || label === walls;  // what else there is seldom stands in the way of a camera
      tiles[2 * (Math.floor(place[0] / TILE) * across + Math.floor(place[1] / TILE)) + (tall ? 1 : 0)].quad(
        place, axis, first, second, front, wide, high, label, corner, look);
    }
  }
  return tiles.flatMap((faces, k) => (faces.count ? [Object.assign(faces.geometry(), { userData: { tall: k % 2 === 1 } })] : []));
}
