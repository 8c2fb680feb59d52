"use strict";
/* The workspace in 3-D: simple shapes, their shadows on the table, and the handle that stands for the gripper.
   Metres in the robot's base frame, z up; matrices are column-major arrays of 16. */

const Geometry = {
  box() {
    const faces = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]];
    const out = [];
    for (const n of faces) {
      const u = [n[1], n[2], n[0]], v = [n[2], n[0], n[1]];
      const at = (a, b) => [0, 1, 2].map((i) => n[i] + a * u[i] + b * v[i]);
      for (const corner of [at(-1, -1), at(1, -1), at(1, 1), at(-1, -1), at(1, 1), at(-1, 1)]) out.push(...corner, ...n);
    }
    return out;
  },
  cylinder(sides = 32) {
    const out = [];
    for (let k = 0; k < sides; k++) {
      const [a, b] = [k, k + 1].map((i) => (2 * Math.PI * i) / sides).map((t) => [Math.cos(t), Math.sin(t)]);
      const wall = (p, z) => out.push(p[0], p[1], z, p[0], p[1], 0);
      wall(a, -1); wall(b, -1); wall(b, 1); wall(a, -1); wall(b, 1); wall(a, 1);
      for (const z of [-1, 1]) out.push(0, 0, z, 0, 0, z, a[0], a[1], z, 0, 0, z, b[0], b[1], z, 0, 0, z);
    }
    return out;
  },
  sphere(rings = 12, sides = 24) {
    const point = (i, k) => {
      const t = (Math.PI * i) / rings, p = (2 * Math.PI * k) / sides;
      return [Math.sin(t) * Math.cos(p), Math.sin(t) * Math.sin(p), Math.cos(t)];
    };
    const out = [];
    for (let i = 0; i < rings; i++) for (let k = 0; k < sides; k++) {
      const [a, b, c, d] = [point(i, k), point(i + 1, k), point(i + 1, k + 1), point(i, k + 1)];
      for (const p of [a, b, c, a, c, d]) out.push(...p, ...p);
    }
    return out;
  },
};

const Vector = {
  sub: (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]],
  add: (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]],
  dot: (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2],
  cross: (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]],
  unit: (a) => { const n = Math.hypot(...a) || 1; return [a[0] / n, a[1] / n, a[2] / n]; },
};

const Matrix = {
  product(a, b) {
    const out = new Float32Array(16);
    for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++)
      for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
    return out;
  },
  /* Position, quaternion w first, and half sizes. */
  pose(p, q, s) {
    const [w, x, y, z] = q;
    return new Float32Array([
      (1 - 2 * (y * y + z * z)) * s[0], 2 * (x * y + w * z) * s[0], 2 * (x * z - w * y) * s[0], 0,
      2 * (x * y - w * z) * s[1], (1 - 2 * (x * x + z * z)) * s[1], 2 * (y * z + w * x) * s[1], 0,
      2 * (x * z + w * y) * s[2], 2 * (y * z - w * x) * s[2], (1 - 2 * (x * x + y * y)) * s[2], 0,
      p[0], p[1], p[2], 1]);
  },
  perspective(fov, aspect, near, far) {
    const f = 1 / Math.tan(fov / 2), d = near - far;
    return new Float32Array([f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / d, -1, 0, 0, (2 * far * near) / d, 0]);
  },
  lookAt(eye, at) {
    const back = Vector.unit(Vector.sub(eye, at));
    const right = Vector.unit(Vector.cross([0, 0, 1], back)), up = Vector.cross(back, right);
    return new Float32Array([
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      -Vector.dot(right, eye), -Vector.dot(up, eye), -Vector.dot(back, eye), 1]);
  },
  /* Flattens onto the plane z = height, along the light. */
  shadow(light, height) {
    const [x, y, z] = light.map((v) => v / light[2]);
    return new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, -x, -y, 0, 0, x * height, y * height, height, z]);
  },
};

class View {
  static FIELD = 0.7;
  static LIGHT = Vector.unit([-0.35, 0.3, 1]);

  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { antialias: true, stencil: true, alpha: false });
    this.geoms = [];
    this.poses = new Float32Array(0);
    this.focus = [0.2, 0, 0.05];
    this.table = 0;
    this.azimuth = -2.0;
    this.elevation = 0.7;
    this.distance = 0.95;
    this.handle = null;
    this.grabbed = false;
    if (this.gl) this.prepare();
  }

  prepare() {
    const gl = this.gl;
    const shader = (kind, text) => { const s = gl.createShader(kind); gl.shaderSource(s, text); gl.compileShader(s); return s; };
    this.program = gl.createProgram();
    gl.attachShader(this.program, shader(gl.VERTEX_SHADER, `
      attribute vec3 place, normal; uniform mat4 model, camera; varying vec3 facing;
      void main() { facing = normalize(mat3(model) * normal); gl_Position = camera * model * vec4(place, 1.0); }`));
    gl.attachShader(this.program, shader(gl.FRAGMENT_SHADER, `
      precision mediump float; uniform vec4 colour; uniform vec3 light; uniform float shaded; varying vec3 facing;
      void main() {
        vec3 n = normalize(facing);
        float bright = 0.62 + 0.3 * max(dot(n, light), 0.0) + 0.12 * n.z;
        gl_FragColor = vec4(colour.rgb * mix(1.0, bright, shaded), colour.a);
      }`));
    gl.linkProgram(this.program);
    gl.useProgram(this.program);
    this.places = {};
    for (const name of ["model", "camera", "colour", "light", "shaded"]) this.places[name] = gl.getUniformLocation(this.program, name);
    this.meshes = {};
    for (const [name, make] of Object.entries(Geometry)) {
      const data = new Float32Array(make()), buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      this.meshes[name] = { buffer, count: data.length / 6 };
    }
    for (const name of ["place", "normal"]) gl.enableVertexAttribArray(gl.getAttribLocation(this.program, name));
  }

  setScene(scene) {
    this.geoms = scene.geoms;
    this.table = scene.table;
    this.focus = [scene.focus[0], scene.focus[1], this.table + 0.04];
    this.distance = 0.62 + 0.95 * Math.hypot(scene.focus[0], scene.focus[1]);
    this.poses = new Float32Array(0);
  }

  get eye() {
    const flat = this.distance * Math.cos(this.elevation);
    return Vector.add(this.focus, [flat * Math.cos(this.azimuth), flat * Math.sin(this.azimuth), this.distance * Math.sin(this.elevation)]);
  }

  get camera() {
    const aspect = this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight);
    return Matrix.product(Matrix.perspective(View.FIELD, aspect, 0.1 * this.distance, 10 * this.distance), Matrix.lookAt(this.eye, this.focus));
  }

  /* Where a point is on the canvas, CSS pixels from its upper left corner. */
  project(point) {
    const m = this.camera, w = m[3] * point[0] + m[7] * point[1] + m[11] * point[2] + m[15];
    const at = (r) => (m[r] * point[0] + m[r + 4] * point[1] + m[r + 8] * point[2] + m[r + 12]) / w;
    return [(0.5 + 0.5 * at(0)) * this.canvas.clientWidth, (0.5 - 0.5 * at(1)) * this.canvas.clientHeight];
  }

  /* Unit direction of the ray from the eye through a canvas point. */
  ray(x, y) {
    const back = Vector.unit(Vector.sub(this.eye, this.focus)), right = Vector.unit(Vector.cross([0, 0, 1], back));
    const up = Vector.cross(back, right), t = Math.tan(View.FIELD / 2), h = this.canvas.clientHeight, w = this.canvas.clientWidth;
    const sideways = ((2 * x) / w - 1) * t * (w / h), upwards = (1 - (2 * y) / h) * t;
    return Vector.unit(Vector.add(Vector.add(Vector.add([0, 0, 0], back, -1), right, sideways), up, upwards));
  }

  /* Where that ray meets the plane through `point` with `normal`; null if it does not. */
  meet(x, y, point, normal) {
    const ray = this.ray(x, y), slope = Vector.dot(ray, normal);
    if (Math.abs(slope) < 1e-4) return null;
    const t = Vector.dot(Vector.sub(point, this.eye), normal) / slope;
    return t > 0 && t < 10 ? Vector.add(this.eye, ray, t) : null;
  }

  draw() {
    const gl = this.gl;
    if (!gl) return;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) { this.canvas.width = width; this.canvas.height = height; }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0.93, 0.943, 0.952, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT | gl.STENCIL_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.uniformMatrix4fv(this.places.camera, false, this.camera);
    gl.uniform3fv(this.places.light, View.LIGHT);
    this.drawGeoms((geom) => geom.colour);
    this.drawShadows();
    if (this.handle) this.drawHandle();
  }

  drawGeoms(colour, onto = null, skip = () => false) {
    for (let g = 0; g < this.geoms.length && 7 * g + 6 < this.poses.length; g++) {
      const geom = this.geoms[g], p = this.poses.subarray(7 * g, 7 * g + 3), q = this.poses.subarray(7 * g + 3, 7 * g + 7);
      if (skip(geom, p)) continue;
      const [x, y, z] = geom.size;
      if (z < 0.002) this.gl.enable(this.gl.POLYGON_OFFSET_FILL);
      else this.gl.disable(this.gl.POLYGON_OFFSET_FILL);
      this.gl.polygonOffset(-2, -4 - g);
      if (geom.shape !== "capsule") { this.mesh(geom.shape, Matrix.pose(p, q, geom.size), colour(geom), 1, onto); continue; }
      this.mesh("cylinder", Matrix.pose(p, q, [x, y, z]), colour(geom), 1, onto);
      const axis = Matrix.pose([0, 0, 0], q, [1, 1, 1]).subarray(8, 11);
      for (const end of [-z, z]) this.mesh("sphere", Matrix.pose(Vector.add(p, axis, end), q, [x, x, x]), colour(geom), 1, onto);
    }
  }

  drawShadows() {
    const gl = this.gl, flat = Matrix.shadow(View.LIGHT, this.table + 0.0016);
    gl.enable(gl.STENCIL_TEST);
    gl.stencilFunc(gl.EQUAL, 0, 255);
    gl.stencilOp(gl.KEEP, gl.KEEP, gl.INCR);
    gl.depthMask(false);
    const thin = (geom, p) => geom.size[2] < 0.002 || p[2] < this.table || Math.max(...geom.size) > 0.4;
    this.drawGeoms(() => [0.1, 0.12, 0.15, 0.2], flat, thin);
    gl.disable(gl.STENCIL_TEST);
    gl.disable(gl.POLYGON_OFFSET_FILL);
    gl.depthMask(true);
  }

  /* A ball to drag, the way the gripper points and opens, and a plumb line to the table. Shines through the arm. */
  drawHandle() {
    const gl = this.gl, { position, approach, opening, width } = this.handle;
    const colour = this.grabbed ? [0.1, 0.45, 0.85] : [0.12, 0.6, 0.4], r = 0.007 * Math.max(1, this.distance);
    const draw = (alpha) => {
      this.mesh("sphere", Matrix.pose(position, [1, 0, 0, 0], [r, r, r]), [...colour, alpha], 0.5);
      this.rod(position, Vector.add(position, approach, -0.05), 0.0013, [...colour, alpha]);
      for (const side of [-1, 1]) {
        const finger = Vector.add(position, opening, (side * width) / 2);
        this.rod(finger, Vector.add(finger, approach, -0.02), 0.0016, [...colour, alpha]);
      }
      this.rod(Vector.add(position, opening, -width / 2), Vector.add(position, opening, width / 2), 0.0008, [...colour, alpha]);
      this.rod([position[0], position[1], this.table], position, 0.0006, [...colour, 0.6 * alpha]);
      this.mesh("cylinder", Matrix.pose([position[0], position[1], this.table + 0.002], [1, 0, 0, 0], [r, r, 0.0003]), [...colour, 0.5 * alpha], 0);
    };
    gl.disable(gl.DEPTH_TEST);
    draw(0.3);
    gl.enable(gl.DEPTH_TEST);
    draw(1);
  }

  rod(from, to, radius, colour) {
    const along = Vector.sub(to, from), length = Math.hypot(...along);
    if (length < 1e-6) return;
    const z = Vector.unit(along), aside = Math.abs(z[2]) < 0.9 ? [0, 0, 1] : [1, 0, 0];
    const x = Vector.unit(Vector.cross(aside, z)), y = Vector.cross(z, x), middle = Vector.add(from, along, 0.5);
    const column = (v, s) => [v[0] * s, v[1] * s, v[2] * s, 0];
    this.mesh("cylinder", new Float32Array([...column(x, radius), ...column(y, radius), ...column(z, length / 2), ...middle, 1]), colour, 0.5);
  }

  mesh(shape, model, colour, shaded, onto = null) {
    const gl = this.gl, mesh = this.meshes[shape];
    gl.bindBuffer(gl.ARRAY_BUFFER, mesh.buffer);
    gl.vertexAttribPointer(gl.getAttribLocation(this.program, "place"), 3, gl.FLOAT, false, 24, 0);
    gl.vertexAttribPointer(gl.getAttribLocation(this.program, "normal"), 3, gl.FLOAT, false, 24, 12);
    gl.uniformMatrix4fv(this.places.model, false, onto ? Matrix.product(onto, model) : model);
    gl.uniform4fv(this.places.colour, colour);
    gl.uniform1f(this.places.shaded, onto ? 0 : shaded);
    gl.drawArrays(gl.TRIANGLES, 0, mesh.count);
  }
}
