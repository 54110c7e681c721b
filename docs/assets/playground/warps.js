"use strict";

// The formulas of the transform families, as in the Python library; `canvas.js` and `webgl.js` draw with them.
// tests/test_playground.py compares them with Python. Points are (x, y), normalized: -1 and 1 are the outer edges of the
// outer pixels. A map takes a target (output) point and writes the source (input) point to `out`.
const Playground = {};

(() => {
  const HORIZON = 1e-12; // smallest denominator of a homography

  // ---- families whose warps are matrices: theta -> [a, b, tx, c, d, ty, vx, vy, w] ----

  /** A rotation of lengths, in the normalized coordinates of an image with sides [w, h]. */
  function turned(scale, angle, tx, ty, [w, h]) {
    const cos = scale * Math.cos(angle);
    const sin = scale * Math.sin(angle);
    return [cos, (-sin * h) / w, tx, (sin * w) / h, cos, ty, 0, 0, 1];
  }

  const cross = (a, b) => a[0] * b[1] - a[1] * b[0];

  /** The homography that maps the corners of the output, clockwise from the top left, to `p` (Heckbert 1989). */
  function fromCorners(p) {
    const minus = (a, b) => [a[0] - b[0], a[1] - b[1]];
    const e1 = minus(p[1], p[2]);
    const e2 = minus(p[3], p[2]);
    const skew = [p[0][0] - p[1][0] + p[2][0] - p[3][0], p[0][1] - p[1][1] + p[2][1] - p[3][1]];
    let area = cross(e1, e2);
    if (Math.abs(area) < 1e-6) area = 1e-6;
    const g = cross(skew, e2) / area;
    const h = cross(e1, skew) / area;
    const row = (right, down, origin) => [right / 2, down / 2, (right + down) / 2 + origin];
    const top = [0, 1].map((i) => row(p[1][i] - p[0][i] + g * p[1][i], p[3][i] - p[0][i] + h * p[3][i], p[0][i]));
    return [...top[0], ...top[1], ...row(g, h, 1)];
  }

  const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];

  function mapOf(m) {
    if (m[6] === 0 && m[7] === 0 && m[8] === 1) {
      return (x, y, out) => {
        out[0] = m[0] * x + m[1] * y + m[2];
        out[1] = m[3] * x + m[4] * y + m[5];
      };
    }
    return (x, y, out) => {
      let w = m[6] * x + m[7] * y + m[8];
      if (Math.abs(w) < HORIZON) w = HORIZON;
      out[0] = (m[0] * x + m[1] * y + m[2]) / w;
      out[1] = (m[3] * x + m[4] * y + m[5]) / w;
    };
  }

  // ---- displacements at control points: x' = x + sum_j weight_j(x) theta_j ----

  /** `count` numbers from -1 to 1. */
  const spaced = (count) => Array.from({ length: count }, (_, i) => (2 * i) / (count - 1) - 1);
  const product = (along) => along.flatMap((y) => along.map((x) => [x, y]));

  function solve(rows, right) {
    // Gauss-Jordan elimination with pivoting, of `rows` X = `right`; both are overwritten.
    for (let i = 0; i < rows.length; i++) {
      let best = i;
      for (let k = i + 1; k < rows.length; k++) if (Math.abs(rows[k][i]) > Math.abs(rows[best][i])) best = k;
      [rows[i], rows[best]] = [rows[best], rows[i]];
      [right[i], right[best]] = [right[best], right[i]];
      for (let k = 0; k < rows.length; k++) {
        const by = k === i ? 0 : rows[k][i] / rows[i][i];
        if (by === 0) continue;
        for (let j = i; j < rows.length; j++) rows[k][j] -= by * rows[i][j];
        for (let j = 0; j < right[k].length; j++) right[k][j] -= by * right[i][j];
      }
    }
    return right.map((row, i) => row.map((value) => value / rows[i][i]));
  }

  /** Write (U(|x - p_1|), .., U(|x - p_T|), 1, x, y) to `basis`, with U = r^2 log r (Bookstein 1989). */
  function radialAndLinear(points, x, y, basis) {
    const count = points.length;
    for (let j = 0; j < count; j++) {
      const dx = x - points[j][0];
      const dy = y - points[j][1];
      const r2 = dx * dx + dy * dy;
      basis[j] = r2 === 0 ? 0 : 0.5 * r2 * Math.log(r2);
    }
    basis[count] = 1;
    basis[count + 1] = x;
    basis[count + 2] = y;
    return basis;
  }

  /** Weights of a thin-plate spline: weight_j is the spline that is 1 at control point j and 0 at the others. */
  function thinPlate(points) {
    const count = points.length;
    const basis = new Float64Array(count + 3);
    const rows = points.map(([x, y]) => [...radialAndLinear(points, x, y, basis)]);
    for (let k = 0; k < 3; k++) rows.push([...points.map((_, j) => rows[j][count + k]), 0, 0, 0]);
    const unit = rows.map((_, i) => points.map((_, j) => (i === j ? 1 : 0)));
    const solution = Float64Array.from(solve(rows, unit).flat()); // (T + 3, T)
    const weightsAt = (x, y, weights) => {
      radialAndLinear(points, x, y, basis);
      for (let j = 0; j < count; j++) {
        let sum = 0;
        for (let i = 0, at = j; i < count + 3; i++, at += count) sum += basis[i] * solution[at];
        weights[j] = sum;
      }
    };
    return { points, solution, weightsAt };
  }

  /**
   * A lattice of count x count control points. Weights are products of weights along x and along y. The point x lies at
   * `place(x)` between the control points 0 .. count - 1, and sees `taps` of them by `kernel(distance)`.
   */
  function lattice(count, taps, place, kernel) {
    const weightsAt = (x, y, weights) => {
      const [column, row] = [place(x), place(y)];
      for (let i = 0, j = 0; i < count; i++) {
        const down = kernel(Math.abs(row - i));
        for (let k = 0; k < count; k++, j++) weights[j] = down === 0 ? 0 : down * kernel(Math.abs(column - k));
      }
    };
    return { count, taps, place, kernel, weightsAt };
  }

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /** Cubic B-spline: `count` control points, of which the image spans the inner count - 3 intervals (Rueckert 1999). */
  const cubic = (count) =>
    lattice(count, 4, (x) => ((clamp(x, -1, 1) + 1) * (count - 3)) / 2 + 1,
      (t) => (Math.max(2 - t, 0) ** 3 - 4 * Math.max(1 - t, 0) ** 3) / 6);

  /** Linear between the pixels of an image of count x count, constant beyond the outer ones. */
  const linear = (count) =>
    lattice(count, 2, (x) => clamp((x * count + count - 1) / 2, 0, count - 1), (t) => Math.max(1 - t, 0));

  /** A family whose displacement is linear in theta. `form` is its spline or its lattice, by which it is drawn. */
  function displaced(name, code, points, form) {
    const { weightsAt } = Object.values(form)[0];
    const map = (theta) => {
      const weights = new Float64Array(points.length);
      return (x, y, out) => {
        weightsAt(x, y, weights);
        out[0] = x;
        out[1] = y;
        for (let j = 0; j < weights.length; j++) {
          out[0] += weights[j] * theta[2 * j];
          out[1] += weights[j] * theta[2 * j + 1];
        }
      };
    };
    const inner = points.flatMap(([x, y], j) => (Math.max(Math.abs(x), Math.abs(y)) > 1 + 1e-9 ? [] : [j]));
    return {
      name, code, map, ...form,
      identity: new Array(2 * points.length).fill(0),
      handles: inner.map((j) => points[j]),
      numbers: inner, // the control points that have a handle
      drag: (theta, i, q) => {
        // The point of a B-spline moves by 4/9 of its displacement, those of the others by all of it.
        const [at, j, weights] = [[0, 0], inner[i], new Float64Array(points.length)];
        map(theta)(...points[j], at);
        weightsAt(...points[j], weights);
        return theta.map((value, k) => (k >> 1 === j ? value + (q[k % 2] - at[k % 2]) / weights[j] : value));
      },
    };
  }

  function linearFamily(name, code, names, identity, matrix, handles, drag) {
    return { name, code, names, identity, handles, drag, matrix, map: (theta, size) => mapOf(matrix(theta, size)) };
  }

  /** The matrix of a family between pixels of the output and of the input, which both have w x h. */
  Playground.inPixels = (m, w, h) => {
    const row = (a, b, c) => [(2 * a) / w, (2 * b) / h, a * (1 / w - 1) + b * (1 / h - 1) + c];
    const [x, y, z] = [0, 3, 6].map((k) => row(m[k], m[k + 1], m[k + 2]));
    const pixels = (line, n) => line.map((value, k) => (value * n + (n - 1) * z[k]) / 2);
    return [...pixels(x, w), ...pixels(y, h), ...z];
  };

  const square = (code) => () => code;
  const shaped = (name) => ([w, h]) => `stn.${name}(aspect=(${h}, ${w}))`;
  const CENTER = [0, 0];
  const rowsOf = (m) => m.slice(0, 8).map((value) => value / m[8]);
  const cubicAt = Array.from({ length: 6 }, (_, i) => (2 * (i - 1)) / 3 - 1);
  const linearAt = Array.from({ length: 5 }, (_, i) => (2 * i + 1) / 5 - 1);
  const toward = (theta, at, q, [w, h]) => [(q[0] - theta[at]) * w, (q[1] - theta[at + 1]) * h];

  Playground.families = {
    translation: linearFamily("Translation", square("stn.Translation()"), ["tx", "ty"], [0, 0],
      ([tx, ty]) => [1, 0, tx, 0, 1, ty, 0, 0, 1], [CENTER], (theta, i, q) => q),
    rigid: linearFamily("Rigid", shaped("Rigid"), ["angle", "tx", "ty"], [0, 0, 0],
      ([angle, tx, ty], size) => turned(1, angle, tx, ty, size), [CENTER, [1, 0]],
      (theta, i, q, size) => {
        if (i === 0) return [theta[0], ...q];
        const [dx, dy] = toward(theta, 1, q, size);
        return [Math.atan2(dy, dx), theta[1], theta[2]];
      }),
    similarity: linearFamily("Similarity", shaped("Similarity"), ["scale", "angle", "tx", "ty"], [1, 0, 0, 0],
      ([scale, angle, tx, ty], size) => turned(scale, angle, tx, ty, size), [CENTER, [1, 0]],
      (theta, i, q, size) => {
        if (i === 0) return [theta[0], theta[1], ...q];
        const [dx, dy] = toward(theta, 2, q, size);
        return [Math.hypot(dx, dy) / size[0], Math.atan2(dy, dx), theta[2], theta[3]];
      }),
    attention: linearFamily("Attention (crop)", square("stn.Attention()"), ["scale", "tx", "ty"], [1, 0, 0],
      ([s, tx, ty]) => [s, 0, tx, 0, s, ty, 0, 0, 1], [CENTER, [1, 1]],
      (theta, i, q) => (i === 0 ? [theta[0], ...q] : [(q[0] - theta[1] + q[1] - theta[2]) / 2, theta[1], theta[2]])),
    anisotropic_scale: linearFamily("Anisotropic scale", square("stn.AnisotropicScale()"), ["sx", "sy", "tx", "ty"],
      [1, 1, 0, 0], ([sx, sy, tx, ty]) => [sx, 0, tx, 0, sy, ty, 0, 0, 1], [CENTER, [1, 1]],
      (theta, i, q) => (i === 0 ? [theta[0], theta[1], ...q] : [q[0] - theta[2], q[1] - theta[3], theta[2], theta[3]])),
    affine: linearFamily("Affine", square("stn.Affine()"), ["a", "b", "tx", "c", "d", "ty"], [1, 0, 0, 0, 1, 0],
      (theta) => [...theta, 0, 0, 1], [CENTER, [1, 0], [0, 1]],
      ([a, b, tx, c, d, ty], i, q) => {
        if (i === 0) return [a, b, q[0], c, d, q[1]];
        const [x, y] = [q[0] - tx, q[1] - ty];
        return i === 1 ? [x, b, tx, y, d, ty] : [a, x, tx, c, y, ty];
      }),
    corners: linearFamily("Projective, by its corners", square("stn.MovedCorners()"),
      ["x, top left", "y, top left", "x, top right", "y, top right", "x, bottom right", "y, bottom right",
        "x, bottom left", "y, bottom left"], [0, 0, 0, 0, 0, 0, 0, 0],
      (theta) => fromCorners(CORNERS.map(([x, y], k) => [x + theta[2 * k], y + theta[2 * k + 1]])), CORNERS,
      (theta, i, q) => theta.map((value, k) => (k >> 1 === i ? q[k % 2] - CORNERS[i][k % 2] : value))),
    projective: linearFamily("Projective, by its matrix", square("stn.Projective()"),
      ["a", "b", "tx", "c", "d", "ty", "vx", "vy"], [1, 0, 0, 0, 1, 0, 0, 0], (theta) => [...theta, 1], CORNERS,
      (theta, i, q) => {
        const [out, map] = [[0, 0], mapOf([...theta, 1])];
        const moved = CORNERS.map(([x, y], k) => (map(x, y, out), k === i ? q : [...out]));
        return rowsOf(fromCorners(moved));
      }),
    tps: displaced("Thin-plate spline", square("stn.ThinPlateSpline()"), product(spaced(4)),
      { spline: thinPlate(product(spaced(4))) }),
    bspline: displaced("B-spline", square("stn.BSpline(shape=(6, 6))"), product(cubicAt), { lattice: cubic(6) }),
    displacement: displaced("Displacement", square("stn.Displacement(shape=(5, 5))"), product(linearAt), { lattice: linear(5) }),
  };
})();
