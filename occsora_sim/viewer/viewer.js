// Shows rollouts: decodes frames, meshes their exposed faces, and moves ego and road users between frames.
// World and ego frames are the project's: x forward, y left, z up, metres. Text of a rollout goes through textContent.

const THREE = globalThis.THREE;
const $ = (id) => document.getElementById(id);
for (const kind of ["error", "unhandledrejection"])
  addEventListener(kind, (event) => { $("notice").textContent = `This page cannot show it: ${event.message ?? event.reason?.message}`; });

// ---------------------------------------------------------------- data

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const { meta, arrays } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const kinds = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array };
  const found = {};
  for (const [name, [kind, shape, offset]] of Object.entries(arrays)) {
    const data = new kinds[kind](buffer, 8 + length + offset, shape.reduce((a, b) => a * b, 1));
    found[name] = { data, shape };
  }
  return { meta, ...found };
}

const scenery = await unpack($("scenery").textContent);
const CLASSES = scenery.meta.classes, FREE = scenery.meta.free;
const FLAT = CLASSES.map((_, label) => scenery.meta.flat.includes(label));
const COLOURS = scenery.meta.colours, PALETTE = scenery.class_colours.data;
const rgbs = CLASSES.map((_, label) => Array.from(PALETTE.subarray(3 * label, 3 * label + 3)));
const css = (colour) => `rgb(${colour.join(",")})`;
const hidden = new Set();  // labels that are switched off

// Frames of one rollout, those of later pieces behind the earlier ones.
class Recording {
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

// ---------------------------------------------------------------- mesh, after rendering/mesh.py

// +x, -x, +y, -y, +z; nothing below the ground is looked at.
const AMBIENT = [0.6, 0.56, 0.58, 0.58, 0.63], OCCLUSION = [0, 0.55, 0.72, 0.87, 1];
const BLEED = 0.008;  // [voxels] that faces reach over their edges, so that no gap shows where they meet

const SHADES = new Uint8Array(80);  // number of each pair of free and sunny cells around a corner
for (let free = 1, number = 0; free < 5; free++) for (let sunny = 0; sunny <= free; sunny++) SHADES[16 * sunny + free] = number++;
const FULL = (1 - AMBIENT[4]) / scenery.meta.sun[2];  // so that what lies flat in the sun has the palette's colour

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

const TILE = 50;  // [voxels] square; faces of a tile are one geometry, so that those out of sight cost nothing

// Exposed faces of labels (nx, ny, nz), lit by a sun towards (3,) and darkened in corners; equal neighbours are one face.
// Returns a geometry for each tile that has any.
function mesh(labels, nx, ny, nz, sun) {
  const sy = nz + 2, sx = (ny + 2) * sy, cells = new Uint8Array((nx + 2) * sx), inside = [];
  for (let x = 0, from = 0; x < nx; x++)
    for (let y = 0; y < ny; y++)
      for (let z = 0, to = (x + 1) * sx + (y + 1) * sy + 1; z < nz; z++, from++, to++)
        if (labels[from] !== FREE) { cells[to] = labels[from] + 1; inside.push(to); }
  const light = lights(cells, nx, ny, nz, sun);
  const across = Math.ceil(ny / TILE), tiles = Array.from({ length: Math.ceil(nx / TILE) * across }, () => new Faces(64));
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
      let wide = 1, high = 1;
      if (a === b && c === e) while (keys[cell + wide * sf] === key) wide++;
      if (a === e && b === c)
        grow: for (; ; high++)
          for (let j = 0; j < wide; j++) if (keys[cell + high * ss + j * sf] !== key) break grow;
      for (let k = 0; k < high; k++) for (let j = 0; j < wide; j++) keys[cell + k * ss + j * sf] = 0;
      corner[0] = values[a]; corner[1] = values[b]; corner[2] = values[c]; corner[3] = values[e];
      place[0] = Math.floor(cell / sx) - 1; place[1] = Math.floor((cell % sx) / sy) - 1; place[2] = (cell % sy) - 1;
      const label = cells[cell] - 1, look = label === crowns ? CROWN : label === walls && d < 4 ? WALL : 0;
      tiles[Math.floor(place[0] / TILE) * across + Math.floor(place[1] / TILE)].quad(
        place, axis, first, second, front, wide, high, label, corner, look);
    }
  }
  return tiles.filter((faces) => faces.count).map((faces) => faces.geometry());
}

// Of each cell 0 where it is solid, 1 where it is free, 17 where the sun reaches it too. Shadows go down layer by layer.
function lights(cells, nx, ny, nz, sun) {
  const sy = nz + 2, sx = (ny + 2) * sy, light = new Uint8Array(cells.length), slope = [sun[0] / sun[2], sun[1] / sun[2]];
  for (let z = nz + 1; z >= 0; z--) {
    const dx = Math.round(slope[0] * (z + 1)) - Math.round(slope[0] * z), dy = Math.round(slope[1] * (z + 1)) - Math.round(slope[1] * z);
    const up = dx * sx + dy * sy + 1;
    for (let x = 0; x < nx + 2; x++) {
      const within = z <= nz && x + dx >= 0 && x + dx < nx + 2;
      for (let y = 0, here = x * sx + z; y < ny + 2; y++, here += sy)
        if (!cells[here]) light[here] = within && y + dy >= 0 && y + dy < ny + 2 && light[here + up] < 2 ? 1 : 17;
    }
  }
  return light;
}

// ---------------------------------------------------------------- pose

const wrap = (angle) => Math.atan2(Math.sin(angle), Math.cos(angle));
const between = (a, b, share) => [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + wrap(b[2] - a[2]) * share];
const compose = (a, b) => {
  const c = Math.cos(a[2]), s = Math.sin(a[2]);
  return [a[0] + c * b[0] - s * b[1], a[1] + s * b[0] + c * b[1], a[2] + (b[2] ?? 0)];
};
const relative = (a, b) => {
  const c = Math.cos(a[2]), s = Math.sin(a[2]), x = b[0] - a[0], y = b[1] - a[1];
  return [c * x + s * y, -s * x + c * y, (b[2] ?? 0) - a[2]];
};
const matrix = (pose, z = 0, scale = 1) => {
  const c = Math.cos(pose[2]) * scale, s = Math.sin(pose[2]) * scale;
  return new THREE.Matrix4().set(c, -s, 0, pose[0], s, c, 0, pose[1], 0, 0, scale, z, 0, 0, 0, 1);
};

// ---------------------------------------------------------------- a view of one recording

const CLEARANCE = 2.6;  // [m] around the line from the camera to the ego
const SHADERS = {
  vertexShader: `
    attribute vec4 color; varying vec4 vColour; varying vec3 vPlace;
    void main() {
      vec4 place = modelMatrix * vec4(position, 1.0);
      vPlace = place.xyz; vColour = color;
      gl_Position = projectionMatrix * viewMatrix * place;
    }`,
  fragmentShader: `
    uniform vec3 ego, eye, haze; uniform vec2 reach, start, turn; uniform float ground, edge, base, voxel;
    varying vec4 vColour; varying vec3 vPlace;
    void main() {
      #ifdef OPEN  // what stands between the camera and the ego is cut away
      vec3 line = ego - eye;
      float share = clamp(dot(vPlace - eye, line) / dot(line, line), 0.0, 1.0);
      if (vPlace.z > ground + 0.9 && distance(vPlace, eye + share * line) < ${CLEARANCE}) discard;
      #endif
      vec3 colour = vColour.rgb;
      float layer = floor((vPlace.z - base) / voxel + 0.01);
      if (vColour.a > 0.6) colour *= min(1.0, 0.82 + 0.012 * layer);
      else if (vColour.a > 0.2 && mod(layer, 7.0) > 3.5) colour *= 0.87;
      if (edge > 0.0) {  // the border of what the first frame showed
        vec2 from = vPlace.xy - start;
        from = abs(vec2(turn.x * from.x + turn.y * from.y, turn.x * from.y - turn.y * from.x));
        if (abs(max(from.x, from.y) - edge) < 0.16) colour = vec3(0.54, 0.25, 0.82);
      }
      float far = clamp((distance(vPlace.xy, ego.xy) - reach.x) / (reach.y - reach.x), 0.0, 1.0);
      gl_FragColor = vec4(mix(colour, haze, far * far * (3.0 - 2.0 * far)), 1.0);
    }`,
};
const KEPT = 64;  // meshed frames of a view that stay in memory
const plain = (options) => new THREE.MeshBasicMaterial({ vertexColors: true, ...options });

function fixedMesh(name, options) {
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(scenery[`${name}_vertices`].data, 3));
  geometry.setAttribute("color", new THREE.BufferAttribute(scenery[`${name}_colours`].data, 3));
  geometry.setIndex(new THREE.BufferAttribute(scenery[`${name}_triangles`].data, 1));
  const made = new THREE.Mesh(geometry, plain(options));
  made.matrixAutoUpdate = made.frustumCulled = false;
  return made;
}

// A mesh or line whose points are written anew for every picture.
class Sketch {
  constructor(Kind, material, most) {
    this.geometry = new THREE.BufferGeometry();
    this.points = new Float32Array(3 * most);
    this.colours = new Float32Array(3 * most);
    for (const [name, array] of [["position", this.points], ["color", this.colours]])
      this.geometry.setAttribute(name, new THREE.BufferAttribute(array, 3));
    this.object = new Kind(this.geometry, material);
    this.object.frustumCulled = false;
  }

  begin() { this.used = 0; }

  point(x, y, z, colour) {
    if (3 * this.used >= this.points.length) return;
    this.points.set([x, y, z], 3 * this.used);
    this.colours.set(colour.map((c) => c / 255), 3 * this.used++);
  }

  end() {
    this.geometry.setDrawRange(0, this.used);
    for (const attribute of [this.geometry.attributes.position, this.geometry.attributes.color]) {
      attribute.clearUpdateRanges();
      attribute.addUpdateRange(0, 3 * this.used);
      attribute.needsUpdate = true;
    }
  }
}

const KINDS = new Map([["generated", "generated"], ["live traffic", "live"], ["recorded", "recorded"]]);  // to styles

class View {
  constructor(recording) {
    this.recording = recording;
    this.meshes = new Map();
    this.camera = new THREE.PerspectiveCamera(52, 1, 0.3, 900);
    this.camera.up.set(0, 0, 1);
    const { lower, shape, voxel } = recording.meta.grid, first = recording.frames[0].pose, border = lower[0] + shape[0] * voxel;
    this.uniforms = {
      ego: { value: new THREE.Vector3() }, eye: { value: new THREE.Vector3() },
      haze: { value: new THREE.Vector3(...COLOURS.HAZE.map((c) => c / 255)) },
      reach: { value: scenery.meta.haze.map((share) => share * border) },
      start: { value: [first[0], first[1]] }, turn: { value: [Math.cos(first[2]), Math.sin(first[2])] },
      ground: { value: 0 }, edge: { value: 0 }, base: { value: lower[2] }, voxel: { value: voxel },
    };
    this.border = border;
    this.solid = new THREE.ShaderMaterial({ uniforms: this.uniforms, ...SHADERS });
    this.open = new THREE.ShaderMaterial({ uniforms: this.uniforms, ...SHADERS, defines: { OPEN: 1 } });
    this.scene = new THREE.Scene();
    this.sky = fixedMesh("sky", { side: THREE.DoubleSide, depthWrite: false });
    this.sky.renderOrder = 1;  // behind all that is drawn by then
    this.car = fixedMesh("car");
    this.world = new THREE.Group();
    this.lines = new Sketch(THREE.Mesh, plain({ side: THREE.DoubleSide }), 6 * 1200);
    this.boxes = new Sketch(THREE.LineSegments, new THREE.LineBasicMaterial({ vertexColors: true }), 30 * 128);
    this.scene.add(this.sky, this.world, this.car, this.lines.object, this.boxes.object);
    this.pane = $("pane").content.firstElementChild.cloneNode(true);
    this.pane.classList.add(KINDS.get(recording.meta.kind) ?? "other");
    this.part(".badge").textContent = recording.meta.kind;
    const { agent, name, seed } = recording.meta.texts;
    this.part(".title").textContent = [agent, name, seed === undefined ? "" : `seed ${seed}`].filter(Boolean).join(" · ");
    this.tags = [];
    $("stage").append(this.pane);
  }

  part(selector) { return this.pane.querySelector(selector); }

  // The group of meshes of frame k: what stands still, and each road user with where it was.
  built(k) {
    if (this.meshes.has(k)) return this.meshes.get(k);
    const { recording } = this, frame = recording.frames[k], { shape, voxel, lower } = recording.meta.grid;
    const [nx, ny, nz] = shape, labels = recording.labels(k), group = new THREE.Group(), users = [];
    for (let i = 0; i < labels.length; i++) if (hidden.has(labels[i])) labels[i] = FREE;
    const sun = (yaw) => { const [x, y, z] = scenery.meta.sun, c = Math.cos(yaw), s = Math.sin(yaw); return [c * x + s * y, c * y - s * x, z]; };
    const place = (geometries, pose, from) => geometries.map((geometry) => {
      const made = new THREE.Mesh(geometry, this.solid);
      made.matrixAutoUpdate = false;
      made.userData.base = matrix(pose).multiply(new THREE.Matrix4().makeTranslation(
        lower[0] + from[0] * voxel, lower[1] + from[1] * voxel, lower[2])).multiply(new THREE.Matrix4().makeScale(voxel, voxel, voxel));
      made.matrix.copy(made.userData.base);
      group.add(made);
      return made;
    });
    for (const user of frame.users.values()) {  // their voxels move with them until the next frame
      const [x, y, yaw] = relative(frame.pose, user.pose), c = Math.cos(yaw), s = Math.sin(yaw), margin = 0.45;
      const half = [user.size[0] / 2 + margin, user.size[1] / 2 + margin];
      const wide = Math.abs(c) * half[0] + Math.abs(s) * half[1], long = Math.abs(s) * half[0] + Math.abs(c) * half[1];
      const cell = (value, axis, n) => Math.min(n, Math.max(0, Math.floor((value - lower[axis]) / voxel)));
      const [x0, x1, y0, y1] = [cell(x - wide, 0, nx), cell(x + wide + voxel, 0, nx), cell(y - long, 1, ny), cell(y + long + voxel, 1, ny)];
      if (x1 <= x0 || y1 <= y0) continue;
      const own = new Uint8Array((x1 - x0) * (y1 - y0) * nz).fill(FREE);
      let found = false;
      for (let i = x0; i < x1; i++)
        for (let j = y0; j < y1; j++) {
          const px = lower[0] + (i + 0.5) * voxel - x, py = lower[1] + (j + 0.5) * voxel - y;
          if (Math.abs(c * px + s * py) > half[0] || Math.abs(c * py - s * px) > half[1]) continue;
          for (let z = 0; z < nz; z++) {
            const at = (i * ny + j) * nz + z;
            if (labels[at] !== user.label) continue;
            own[((i - x0) * (y1 - y0) + j - y0) * nz + z] = labels[at];
            labels[at] = FREE;
            found = true;
          }
        }
      if (found) users.push({ user, meshes: place(mesh(own, x1 - x0, y1 - y0, nz, sun(frame.pose[2])), frame.pose, [x0, y0]) });
    }
    const still = place(mesh(labels, nx, ny, nz, sun(frame.pose[2])), frame.pose, [0, 0]);
    for (const tile of still) {
      tile.geometry.computeBoundingSphere();
      tile.userData.sphere = tile.geometry.boundingSphere.clone().applyMatrix4(tile.matrix);
    }
    const made = { group, users, still };
    this.meshes.set(k, made);
    if (this.meshes.size > KEPT) this.drop([...this.meshes.keys()].find((old) => Math.abs(old - k) > 2));
    return made;
  }

  drop(k) {
    this.meshes.get(k)?.group.children.forEach((child) => child.geometry.dispose());
    this.meshes.delete(k);
  }

  clear() { [...this.meshes.keys()].forEach((k) => this.drop(k)); }

  // Everything as it is at `time` [s].
  show(time) {
    const { recording } = this, { frames, meta } = recording;
    const exact = Math.min(Math.max(time, 0) / meta.frame_seconds, frames.length - 1), k = Math.min(Math.floor(exact + 1e-6), frames.length - 1);
    const share = exact - k, frame = frames[k], next = frames[k + 1] ?? frame;
    const ego = between(frame.pose, next.pose, share), offset = relative(frame.pose, ego);
    const ground = recording.ground(frame, offset[0], offset[1]);
    Object.assign(this, { k, frame, ego, ground, shown: Math.min(time, recording.seconds) });
    const { group, users } = this.built(k);
    this.world.clear();
    this.world.add(group);
    this.uniforms.ego.value.set(...compose(ego, [scenery.meta.ego_centre, 0]).slice(0, 2), ground + 1.6);
    this.uniforms.ground.value = ground;
    this.uniforms.edge.value = layers.edge.on && meta.kind === "generated" ? this.border : 0;
    this.car.matrix.copy(matrix(ego, ground));
    this.sky.matrix.copy(matrix([ego[0], ego[1], 0]));
    const now = [...frame.users.values()].map((user) => {
      const after = next.users.get(user.id)?.pose ?? [0, 1].map((a) => user.pose[a] + user.velocity[a] * meta.frame_seconds).concat(user.pose[2]);
      return { ...user, at: between(user.pose, after, share) };
    });
    const at = new Map(now.map((user) => [user.id, user.at]));
    for (const { user, meshes } of users)
      for (const part of meshes) part.matrix.copy(matrix(at.get(user.id))).multiply(matrix(user.pose).invert()).multiply(part.userData.base);
    this.users = now.filter((user) => !hidden.has(user.label) && Math.max(...relative(ego, user.at).slice(0, 2).map(Math.abs)) < this.border);
    this.draw(offset);
    this.figures(share, next);
  }

  // Plan and route on the ground, shadows under road users, and their boxes.
  draw(offset) {
    const { recording, frame, ego, lines, boxes } = this;
    lines.begin();
    const height = (world) => recording.ground(frame, ...relative(frame.pose, world));
    if (layers.route.on) {
      const at = recording.route.reduce((best, p, i) => {
        const far = Math.hypot(p[0] - ego[0], p[1] - ego[1]);
        return far < best[1] ? [i, far] : best;
      }, [0, Infinity])[0];
      this.ribbon(recording.route.slice(at), 0.35, COLOURS.ROUTE, 0.05, height);
    }
    if (layers.plan.on && frame.planned.length) {
      const ahead = frame.planned.filter((p) => relative(offset, p)[0] > 0.5).map((p) => compose(frame.pose, p));
      this.ribbon([ego, ...ahead], 1.2, COLOURS.PLAN, 0.08, height);
    }
    for (const user of this.users) {
      const z = height(user.at) + 0.03, dark = [52, 55, 60], [l, w] = [user.size[0] / 2 + 0.1, user.size[1] / 2 + 0.1];
      const corner = (x, y) => lines.point(...compose(user.at, [x, y]).slice(0, 2), z, dark);
      for (const [x, y] of [[l, w], [-l, w], [-l, -w], [l, w], [-l, -w], [l, -w]]) corner(x, y);
    }
    lines.end();
    boxes.begin();
    if (layers.boxes.on)
      for (const user of this.users) {
        const z = height(user.at), colour = rgbs[user.label].map((c) => c * 0.55), [l, w, h] = [user.size[0] / 2, user.size[1] / 2, user.size[2]];
        const corner = (i) => [...compose(user.at, [i & 1 ? l : -l, i & 2 ? w : -w]).slice(0, 2), z + (i & 4 ? h : 0.05)];
        for (const [a, b] of [[0, 1], [2, 3], [4, 5], [6, 7], [0, 2], [1, 3], [4, 6], [5, 7], [0, 4], [1, 5], [2, 6], [3, 7]]) {
          boxes.point(...corner(a), colour);
          boxes.point(...corner(b), colour);
        }
        const nose = compose(user.at, [l + 0.6 + 0.3 * user.speed, 0]);  // longer the faster it is
        boxes.point(...compose(user.at, [l, 0]).slice(0, 2), z + h / 2, colour);
        boxes.point(nose[0], nose[1], z + h / 2, colour);
      }
    boxes.end();
  }

  ribbon(points, width, colour, lift, height) {
    const spaced = [];  // a point every 0.4 m within the grid
    for (let i = 0; i + 1 < points.length; i++) {
      const [a, b] = [points[i], points[i + 1]], count = Math.max(1, Math.min(500, Math.round(Math.hypot(b[0] - a[0], b[1] - a[1]) / 0.4)));
      for (let j = 0; j < count; j++) spaced.push([a[0] + (b[0] - a[0]) * j / count, a[1] + (b[1] - a[1]) * j / count]);
    }
    if (points.length) spaced.push(points[points.length - 1]);
    for (let round = 0; round < 3; round++)
      for (let i = 1; i + 1 < spaced.length; i++)
        spaced[i] = [0, 1].map((a) => (spaced[i - 1][a] + 2 * spaced[i][a] + spaced[i + 1][a]) / 4);
    let before = null;
    for (let i = 0; i + 1 < spaced.length; i++) {
      const here = spaced[i];
      if (Math.hypot(here[0] - this.ego[0], here[1] - this.ego[1]) > this.border) break;
      const along = [spaced[i + 1][0] - here[0], spaced[i + 1][1] - here[1]], length = Math.hypot(...along) || 1;
      const across = [-along[1] / length * width / 2, along[0] / length * width / 2], z = height(here) + lift;
      const pair = [[here[0] + across[0], here[1] + across[1], z], [here[0] - across[0], here[1] - across[1], z]];
      if (before) for (const corner of [before[0], before[1], pair[1], before[0], pair[1], pair[0]]) this.lines.point(...corner, colour);
      before = pair;
    }
  }

  figures(share, next) {
    const { recording, frame } = this, { meta, frames } = recording;
    const speed = Math.hypot(next.pose[0] - frame.pose[0], next.pose[1] - frame.pose[1]) / meta.frame_seconds;
    this.speed = next === frame ? this.speed ?? 0 : speed;
    const parts = [`${(3.6 * this.speed).toFixed(0)} km/h`];
    if (frame.users.size) parts.push(`${frame.users.size} road users`);
    if (this.k === frames.length - 1 && meta.texts.ended) parts.push(`ended: ${meta.texts.ended}`);
    const score = Object.entries(meta.score).filter(([name]) => !["progress", "seconds"].includes(name)).map(([name, value]) => `${name} ${value.toFixed(2)}`);
    this.part(".figures").textContent = [...parts, ...score].join(" · ");
  }

  // The terms of the score, the reward and the speed over time.
  chart(seconds) {
    const { frames, meta } = this.recording, names = Object.keys(frames[frames.length - 1].terms);
    const canvas = this.part("canvas"), pen = canvas.getContext("2d"), left = 62, width = 250, row = 15, line = 37;
    const terms = names.filter((name) => name !== "reward"), curves = [["km/h", this.speeds()]];
    if (names.includes("reward")) curves.push(["reward", frames.map((frame) => frame.terms.reward ?? 0)]);
    const ratio = 2, height = curves.length * line + terms.length * row;
    canvas.width = ratio * (left + width); canvas.height = ratio * height;
    canvas.style.width = `${left + width}px`; canvas.style.height = `${height}px`;
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const x = (k) => left + Math.min(1, k * meta.frame_seconds / Math.max(seconds, 1e-6)) * width;
    let y = 0;
    for (const [name, values] of curves) {
      const low = Math.min(0, ...values), high = Math.max(1, ...values);
      pen.fillStyle = css(COLOURS.FAINT);
      pen.fillText(name, 0, y + line / 2 - 5);
      pen.fillText(`${low.toFixed(0)}–${high.toFixed(0)}`, 0, y + line / 2 + 7);
      pen.strokeStyle = css(COLOURS.BAR);
      pen.lineWidth = 1.5;
      pen.beginPath();
      values.forEach((value, k) => pen.lineTo(x(k), y + line - 4 - (value - low) / (high - low || 1) * (line - 8)));
      pen.stroke();
      y += line;
    }
    for (const name of terms) {
      pen.fillStyle = css(COLOURS.FAINT);
      pen.fillText(name, 0, y + row / 2);
      frames.forEach((frame, k) => {  // of 1 to 0: from good to bad
        const value = frame.terms[name] ?? 0;
        pen.fillStyle = css(value > 0.9 ? COLOURS.GOOD : value > 0.5 ? COLOURS.FAIR : COLOURS.BAD);
        pen.fillRect(x(Math.max(0, k - 1)), y + 3, x(k) - x(Math.max(0, k - 1)) + 0.5, row - 6);
      });
      y += row;
    }
    this.cursor = (time) => 9 + left + Math.min(1, time / Math.max(seconds, 1e-6)) * width;
  }

  speeds() {
    const { frames, meta } = this.recording, out = frames.map((frame, k) => {
      const next = frames[k + 1];
      return next ? 3.6 * Math.hypot(next.pose[0] - frame.pose[0], next.pose[1] - frame.pose[1]) / meta.frame_seconds : 0;
    });
    out[out.length - 1] = out[out.length - 2] ?? 0;
    return out;
  }

  // Id, class and speed beside the road users near the ego.
  labels(width, height) {
    const near = layers.labels.on ? this.users.map((user) => ({ user, far: Math.hypot(user.at[0] - this.ego[0], user.at[1] - this.ego[1]) }))
      .filter(({ far }) => far < 42).sort((a, b) => a.far - b.far).slice(0, 24) : [];
    let used = 0;
    for (const { user } of near) {
      const point = new THREE.Vector3(user.at[0], user.at[1], this.ground + user.size[2] + 0.5).project(this.camera);
      if (point.z > 1 || Math.abs(point.x) > 0.98 || Math.abs(point.y) > 0.95) continue;
      const tag = (this.tags[used] ??= this.part(".labels").appendChild(document.createElement("span")));
      used++;
      const text = `${user.id} ${CLASSES[user.label].replaceAll("_", " ")} ${(3.6 * user.speed).toFixed(0)}`;
      if (tag.textContent !== text) tag.textContent = text;
      tag.style.borderColor = css(rgbs[user.label]);
      tag.style.transform = `translate(${((point.x + 1) / 2 * width).toFixed(0)}px, ${((1 - point.y) / 2 * height - 16).toFixed(0)}px)`;
      tag.style.display = "";
    }
    for (; used < this.tags.length; used++) this.tags[used].style.display = "none";
  }
}

// ---------------------------------------------------------------- controls

const layers = {
  plan: { text: "planned trajectory", on: true, colour: COLOURS.PLAN },
  route: { text: "route", on: true, colour: COLOURS.ROUTE },
  boxes: { text: "boxes", on: true },
  labels: { text: "id, class, km/h", on: true },
  chart: { text: "score over time", on: true },
  edge: { text: "edge of first frame", on: true, colour: [138, 63, 209] },
};

function switchOf(parent, text, colour, on, change) {
  const label = document.createElement("label"), box = document.createElement("input"), swatch = document.createElement("span");
  box.type = "checkbox";
  box.checked = on;
  swatch.className = "swatch";
  if (colour) swatch.style.background = css(colour);
  label.append(box, ...(colour ? [swatch] : []), text);
  label.classList.toggle("off", !on);
  box.addEventListener("change", () => { label.classList.toggle("off", !box.checked); change(box.checked); paint(); });
  parent.append(label);
  return box;
}

const CAMERAS = ["chase", "orbit", "top"], SPEEDS = [0.25, 0.5, 1, 2, 4];
const clock = { time: 0, speed: 1, playing: false, seconds: 0 };
const canvas = $("scene");
THREE.ColorManagement.enabled = false;  // colours are the palette's, as they are
const renderer = new THREE.WebGLRenderer({ canvas, alpha: false, antialias: false });
renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
renderer.autoClear = false;
const views = [];
let mode = "chase", stale = true;

// One camera for all views: where it stands, seen from the ego's place, along the axes of the world.
const hand = new THREE.PerspectiveCamera(52, 1, 0.3, 900);
hand.up.set(0, 0, 1);
hand.position.set(-22, -22, 24);
const orbit = new THREE.OrbitControls(hand, canvas);
orbit.maxPolarAngle = 1.53;
orbit.minDistance = 4;
orbit.maxDistance = 160;
orbit.addEventListener("start", () => { if (mode !== "orbit") look("orbit"); });
orbit.addEventListener("change", () => paint());

function look(name) {
  if (name === "orbit" && mode !== "orbit" && views.length) {  // begin where the other camera stands
    const view = views[0], from = view.camera.position;
    hand.position.set(from.x - view.ego[0], from.y - view.ego[1], from.z - view.ground);
    orbit.target.set(0, 0, 1);
    if (mode === "top") hand.position.x -= 0.5;
    orbit.update();
  }
  mode = name;
  for (const button of $("cameras").children) button.classList.toggle("on", button.textContent === name);
  paint();
}

function aim(view) {
  const { camera, ego, ground } = view, at = (p) => [...compose(ego, p).slice(0, 2), ground + p[2]];
  const put = (eye, target, up, angle) => {
    camera.up.set(...up);
    camera.fov = angle;
    camera.position.set(...eye);
    camera.lookAt(...target);
  };
  if (mode === "chase") put(at([-9, 0, 5.4]), at([9, 0, 0.2]), [0, 0, 1], 52);
  else if (mode === "top") put(at([0.2 * view.border, 0, 1.95 * view.border]), at([0.2 * view.border, 0, 0]), [Math.cos(ego[2]), Math.sin(ego[2]), 0], 50);
  else put(hand.position.toArray().map((p, a) => p + [ego[0], ego[1], ground][a]),
    orbit.target.toArray().map((p, a) => p + [ego[0], ego[1], ground][a]), [0, 0, 1], 52);
  view.uniforms.eye.value.copy(camera.position);
  const line = new THREE.Line3(camera.position, view.uniforms.ego.value), nearest = new THREE.Vector3();
  for (const tile of view.built(view.k).still) {  // the shader that cuts is slower
    const { center, radius } = tile.userData.sphere;
    tile.material = line.closestPointToPoint(center, true, nearest).distanceTo(center) < radius + CLEARANCE ? view.open : view.solid;
  }
}

function paint() { stale = true; }

function seek(time) {
  clock.time = Math.min(Math.max(time, 0), clock.seconds);
  paint();
}

function play(on) {
  if (on && clock.time >= clock.seconds - 1e-6 && !driving) clock.time = 0;
  clock.playing = on;
  sharpen(Math.min(devicePixelRatio, 1.5));
  $("play").textContent = on ? "⏸" : "▶";
  paint();
}

function measure() {
  clock.seconds = Math.max(0, ...views.map((view) => view.recording.seconds));
  $("scrub").max = clock.seconds;
  for (const view of views) view.chart(clock.seconds);
  paint();
}

const spent = [];  // [ms] that the last pictures took, and between them
let last = 0;
function tick(now) {
  requestAnimationFrame(tick);
  const passed = Math.min(now - last, 250) / 1000;
  last = now;
  if (clock.playing && views.length) {
    const before = clock.time;
    clock.time = Math.min(clock.time + passed * clock.speed * (driving ? driving.pace() : 1), clock.seconds);
    if (clock.time >= clock.seconds && !driving) play(false);
    stale ||= clock.time !== before;
  }
  if (!stale || !views.length) return;
  stale = false;
  const begin = performance.now();
  if (renderer.getPixelRatio() !== ratio) renderer.setPixelRatio(ratio);  // here: it clears the picture
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * renderer.getPixelRatio()) || canvas.height !== Math.round(height * renderer.getPixelRatio())) {
    renderer.setSize(width, height, false);
    canvas.style.width = canvas.style.height = "";
  }
  renderer.setScissorTest(true);
  for (const view of views) {
    const box = view.pane, left = box.offsetLeft, wide = box.offsetWidth;
    view.show(clock.time);
    aim(view);
    view.camera.aspect = wide / height;
    view.camera.updateProjectionMatrix();
    view.camera.updateMatrixWorld();
    renderer.setViewport(left, 0, wide, height);
    renderer.setScissor(left, 0, wide, height);
    renderer.clear();
    renderer.render(view.scene, view.camera);
    view.labels(wide, height);
    view.part("i").style.left = `${view.cursor(view.shown)}px`;
    view.part("figure").style.display = layers.chart.on ? "" : "none";
  }
  $("time").textContent = `${clock.time.toFixed(1)} / ${clock.seconds.toFixed(1)} s`;
  if (document.activeElement !== $("scrub") || clock.playing) $("scrub").value = clock.time;
  const behind = views.find((view) => view.k + 1 < view.recording.frames.length && !view.meshes.has(view.k + 1));
  if (clock.playing && behind) behind.built(behind.k + 1);  // ahead of when it is needed, one a picture
  spent.push([performance.now() - begin, now]);
  if (spent.length > 20) spent.shift();
  if (clock.playing && spent.length > 5) $("rate").textContent = `${rate().toFixed(0)} pictures/s`;
  if (clock.playing && spent.length % 6 === 0 && rate() < ENOUGH) sharpen(0.8 * ratio);
}
const ENOUGH = 24;  // pictures a second; where there are fewer they are drawn with fewer pixels until it stands still

let ratio = Math.min(devicePixelRatio, 1.5);  // pixels drawn for each of the page, from the next picture on

function sharpen(wanted) {
  ratio = Math.max(0.5, wanted);
  spent.length = 0;
}

const rate = () => spent.length < 2 ? 0 : 1000 * (spent.length - 1) / Math.max(1, spent[spent.length - 1][1] - spent[0][1]);

const settings = $("classes");
CLASSES.forEach((name, label) => {
  if (label === FREE) return;
  switchOf(settings, name.replaceAll("_", " "), rgbs[label], true, (on) => {
    if (on) hidden.delete(label); else hidden.add(label);
    views.forEach((view) => view.clear());
  }).dataset.label = label;
});
for (const [name, layer] of Object.entries(layers))
  switchOf($("layers"), layer.text, layer.colour, layer.on, (on) => { layer.on = on; }).dataset.layer = name;
for (const name of CAMERAS) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => look(name));
  $("cameras").append(button);
}
for (const value of SPEEDS) $("speed").append(new Option(`${value}×`, value, value === 1, value === 1));
$("speed").addEventListener("change", () => { clock.speed = Number($("speed").value); });
$("play").addEventListener("click", () => play(!clock.playing));
$("scrub").addEventListener("input", () => { play(false); seek(Number($("scrub").value)); });
addEventListener("resize", paint);

function command(event) {
  if (event.target instanceof HTMLSelectElement || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ",": -1, ".": 1, ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key >= "1" && event.key <= "3") look(CAMERAS[Number(event.key) - 1]);
  else if (driving) return;
  else if (event.key === " ") { event.preventDefault(); play(!clock.playing); }
  else if (step) { event.preventDefault(); play(false); seek((Math.round(clock.time / 0.5) + step) * 0.5); }
}
addEventListener("keydown", command);

// ---------------------------------------------------------------- driving

const KEYS = {
  ArrowUp: "forward", w: "forward", ArrowDown: "back", s: "back", ArrowLeft: "left", a: "left", ArrowRight: "right", d: "right",
  " ": "brake",
};
const ORDERS = { m: "agent", r: "again" };
const HELP = "↑ or W: faster, ↓ or S: slower, ← → or A D: steer, space: brake, M: hand over to the agent and back, R: new episode";

// A person at the wheel: sends the keys that are down, and shows what comes back.
class Driver {
  constructor() {
    this.held = new Set();
    addEventListener("keydown", (event) => this.key(event, true));
    addEventListener("keyup", (event) => this.key(event, false));
    addEventListener("blur", () => { this.held.clear(); this.send([]); });
    document.body.classList.add("driving");
    const events = new EventSource("events");
    events.onmessage = (event) => { this.queue = this.queue.then(() => this.hear(JSON.parse(event.data))); };
    events.onerror = () => { $("notice").textContent = "The program has ended; what was driven is saved."; };
    this.queue = Promise.resolve();
  }

  key(event, down) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key, held = KEYS[name], order = ORDERS[name];
    if (held) {
      event.preventDefault();
      if (event.repeat || this.held.has(held) === down) return;
      if (down) this.held.add(held); else this.held.delete(held);
      this.send([]);
    } else if (order && down && !event.repeat) this.send([order]);
  }

  send(orders) {
    this.waiting ??= setTimeout(() => { if (!this.ended) $("notice").textContent = "The next step is being computed …"; }, 1500);
    fetch("keys", { method: "POST", body: JSON.stringify({ held: [...this.held], orders }) }).catch(() => {});
  }

  async hear({ piece, new: begins, driver, ended }) {
    const data = piece && await unpack(piece);
    clearTimeout(this.waiting);
    this.waiting = undefined;
    if (begins) {
      for (const view of views) { view.clear(); view.pane.remove(); }
      views.length = 0;
      const view = new View(new Recording(data));
      view.show(0);
      views.push(view);
      clock.time = 0;
    } else if (data) views[0].recording.append(data);
    measure();
    if (clock.seconds - clock.time > 1.5) clock.time = clock.seconds - 0.5;  // a slow page shows less, not later
    clock.playing = true;
    this.ended = ended;
    $("notice").textContent = ended ? `ended: ${ended}. R: a new episode` : clock.seconds ? "" : HELP;
    $("driver").textContent = driver === "you" ? "you drive" : `${driver} drives`;
  }

  // How fast to show what has come: a little faster where more than a step waits.
  pace() { return clock.seconds - clock.time > 0.75 ? 1.25 : 1; }
}

let driving = null;

async function begin() {
  if (document.body.dataset.mode === "play") {
    driving = new Driver();
    $("notice").textContent = "The world is being made …";
    await new Promise((done) => { const look = () => views.length ? done() : setTimeout(look, 50); look(); });
  } else {
    const pieces = [];
    for (let k = 0; $(`rollout-${k}`); k++) pieces.push(await unpack($(`rollout-${k}`).textContent));
    views.push(...pieces.map((piece) => new View(new Recording(piece))));
    $("notice").textContent = "";
    measure();
  }
  look("chase");
  requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset.ready = "yes"; }));
}

globalThis.viewer = { views, clock, renderer, layers, hidden, seek, play, look, rate, paint, sharpen, spent, get driver() { return driving; }, get mode() { return mode; } };
requestAnimationFrame(tick);
await begin();
