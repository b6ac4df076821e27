// One recording on the page.
import { buildFrame } from "./frame_meshes.js";
import { writeFigures } from "./labels.js";
import { hidden, layers } from "./layers.js";
import { drawMarkings } from "./markings.js";
import { between, compose, matrix, relative } from "./pose.js";
import { $, COLOURS, THREE, scenery } from "./scenery.js";
import { Sketch, fixedMesh, plain } from "./sketch.js";
import { Surface } from "./surface.js";

const KEPT = 64;  // meshed frames of a view that stay in memory
const KINDS = new Map([["generated", "generated"], ["live traffic", "live"], ["recorded", "recorded"]]);  // to styles

export class View {
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
      ground: { value: 0 }, edge: { value: border }, base: { value: lower[2] }, voxel: { value: voxel },
    };
    this.border = border;
    this.surface = new Surface(this.uniforms);
    this.scene = new THREE.Scene();
    this.sky = fixedMesh("sky", { side: THREE.DoubleSide, depthWrite: false });
    this.sky.renderOrder = 1;  // behind all that is drawn by then
    this.car = fixedMesh("car");
    this.world = new THREE.Group();
    this.lines = new Sketch(THREE.Mesh, plain({ side: THREE.DoubleSide }), 6 * 1200);
    this.boxes = new Sketch(THREE.LineSegments, plain(), 30 * 128);
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

  // The meshes of frame k.
  built(k) {
    if (this.meshes.has(k)) return this.meshes.get(k);
    const made = buildFrame(this, k);
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
    this.edged = layers.edge.on && meta.kind === "generated";
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
    drawMarkings(this, offset);
    this.decorate?.();
    writeFigures(this, share, next);
  }
}
