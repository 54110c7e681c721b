"use strict";

// The formulas of the transform families and of bilinear sampling, as in the Python library. tests/test_playground.py
// compares both. Points are (x, y), normalized: -1 and 1 are the outer edges of the outer pixels. A map takes a target
// (output) point and writes the source (input) point to `out`.
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
  const lattice = (along) => along.flatMap((y) => along.map((x) => [x, y]));

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

  /** (U(|x - p_1|), .., U(|x - p_T|), 1, x, y) with U = r^2 log r (Bookstein 1989). */
  function radialAndLinear(points, x, y) {
    const radial = points.map(([px, py]) => {
      const r2 = (x - px) ** 2 + (y - py) ** 2;
      return r2 === 0 ? 0 : 0.5 * r2 * Math.log(r2);
    });
    return [...radial, 1, x, y];
  }

  /** Weights of a thin-plate spline: weight_j is the spline that is 1 at control point j and 0 at the others. */
  function thinPlate(points) {
    const rows = points.map(([x, y]) => radialAndLinear(points, x, y));
    for (let k = 0; k < 3; k++) rows.push([...points.map((_, j) => rows[j][points.length + k]), 0, 0, 0]);
    const unit = rows.map((_, i) => points.map((_, j) => (i === j ? 1 : 0)));
    const solution = solve(rows, unit); // (T + 3, T)
    return (x, y, weights) => {
      const basis = radialAndLinear(points, x, y);
      for (let j = 0; j < points.length; j++) {
        let sum = 0;
        for (let i = 0; i < basis.length; i++) sum += basis[i] * solution[i][j];
        weights[j] = sum;
      }
    };
  }

  /** Weights of a lattice are products of weights along x and along y. */
  function separable(count, along) {
    const weightsAt = (x, y, weights) => {
      for (let row = 0; row < count; row++) {
        const down = along(y, row);
        for (let column = 0; column < count; column++) weights[row * count + column] = down && down * along(x, column);
      }
    };
    /** Add the displacements of a picture of w x h, in pixels: first the rows of control points, then the columns. */
    const add = (theta, w, h, xs, ys) => {
      const across = Float64Array.from({ length: w * count }, (_, k) => along((2 * Math.floor(k / count) + 1) / w - 1, k % count));
      const [dx, dy] = [new Float64Array(count), new Float64Array(count)];
      for (let i = 0, row = 0; row < h; row++) {
        dx.fill(0);
        dy.fill(0);
        for (let k = 0; k < count * count; k++) {
          const down = along((2 * row + 1) / h - 1, Math.floor(k / count));
          dx[k % count] += (down * theta[2 * k] * w) / 2;
          dy[k % count] += (down * theta[2 * k + 1] * h) / 2;
        }
        for (let column = 0; column < w; column++, i++) {
          for (let k = 0, at = column * count; k < count; k++, at++) {
            xs[i] += across[at] * dx[k];
            ys[i] += across[at] * dy[k];
          }
        }
      }
    };
    return Object.assign(weightsAt, { add });
  }

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /** Cubic B-spline: `count` control points, of which the image spans the inner count - 3 intervals (Rueckert 1999). */
  const cubic = (count) =>
    separable(count, (x, i) => {
      const t = Math.abs(((clamp(x, -1, 1) + 1) * (count - 3)) / 2 + 1 - i);
      return (Math.max(2 - t, 0) ** 3 - 4 * Math.max(1 - t, 0) ** 3) / 6;
    });

  /** Linear between the pixels of an image of count x count, constant beyond the outer ones. */
  const linear = (count) =>
    separable(count, (x, i) => Math.max(1 - Math.abs(clamp((x * count + count - 1) / 2, 0, count - 1) - i), 0));

  /** A family whose displacement is linear in theta. Weights without `add` are kept for all pixels: dragging only adds. */
  function displaced(name, code, points, weightsAt) {
    let kept = null;
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
    /** Add the displacements of a picture of w x h, in pixels. */
    const add = (theta, w, h, xs, ys) => {
      weightsOf(w, h).forEach((weights, j) => {
        const dx = (theta[2 * j] * w) / 2;
        const dy = (theta[2 * j + 1] * h) / 2;
        if (dx === 0 && dy === 0) return;
        for (let i = 0; i < w * h; i++) {
          xs[i] += weights[i] * dx;
          ys[i] += weights[i] * dy;
        }
      });
    };
    const weightsOf = (w, h) => {
      if (kept && kept.w === w && kept.h === h) return kept.all;
      const all = points.map(() => new Float32Array(w * h));
      const weights = new Float64Array(points.length);
      for (let i = 0; i < w * h; i++) {
        weightsAt((2 * (i % w) + 1) / w - 1, (2 * Math.floor(i / w) + 1) / h - 1, weights);
        for (let j = 0; j < points.length; j++) all[j][i] = weights[j];
      }
      kept = { w, h, all };
      return all;
    };
    const inner = points.flatMap(([x, y], j) => (Math.max(Math.abs(x), Math.abs(y)) > 1 + 1e-9 ? [] : [j]));
    return {
      name, code, map,
      add: weightsAt.add || add,
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
    return { name, code, names, identity, handles, drag, map: (theta, size) => mapOf(matrix(theta, size)) };
  }

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
    tps: displaced("Thin-plate spline", square("stn.ThinPlateSpline()"), lattice(spaced(4)), thinPlate(lattice(spaced(4)))),
    bspline: displaced("B-spline", square("stn.BSpline(shape=(6, 6))"), lattice(cubicAt), cubic(6)),
    displacement: displaced("Displacement", square("stn.Displacement(shape=(5, 5))"), lattice(linearAt), linear(5)),
  };

  // ---- sampling ----

  /** The source points of all pixels of an output of w x h, in pixels of an input of the same size: xs, ys. */
  Playground.points = (family, theta, w, h, xs, ys) => {
    if (family.add) {
      for (let i = 0; i < w * h; i++) {
        xs[i] = i % w;
        ys[i] = (i / w) | 0;
      }
      family.add(theta, w, h, xs, ys);
      return;
    }
    const [out, map] = [[0, 0], family.map(theta, [w, h])];
    for (let i = 0, row = 0; row < h; row++) {
      for (let column = 0; column < w; column++, i++) {
        map((2 * column + 1) / w - 1, (2 * row + 1) / h - 1, out);
        xs[i] = ((out[0] + 1) * w - 1) / 2;
        ys[i] = ((out[1] + 1) * h - 1) / 2;
      }
    }
  };

  /** Bilinear samples of RGBA pixels at xs, ys, as floats (R, G, B) of 0 to 255. Outside: zeros, or the border. */
  Playground.sample = (pixels, w, h, xs, ys, border, found) => {
    for (let i = 0, to = 0; i < xs.length; i++, to += 3) {
      let x = xs[i];
      let y = ys[i];
      if (border) {
        x = clamp(x, 0, w - 1);
        y = clamp(y, 0, h - 1);
      } else if (!(x > -1 && y > -1 && x < w && y < h)) {
        found[to] = found[to + 1] = found[to + 2] = 0;
        continue;
      }
      const left = Math.floor(x);
      const top = Math.floor(y);
      const fx = x - left;
      const fy = y - top;
      // Weights of the four pixels; a pixel outside has none, and stands for one inside.
      const in0 = left >= 0 ? 1 - fx : 0;
      const in1 = left + 1 < w ? fx : 0;
      const above = top >= 0 ? 1 - fy : 0;
      const below = top + 1 < h ? fy : 0;
      const x0 = left >= 0 ? left : 0;
      const x1 = left + 1 < w ? left + 1 : w - 1;
      const y0 = (top >= 0 ? top : 0) * w;
      const y1 = (top + 1 < h ? top + 1 : h - 1) * w;
      const a = 4 * (y0 + x0);
      const b = 4 * (y0 + x1);
      const c = 4 * (y1 + x0);
      const d = 4 * (y1 + x1);
      found[to] = above * (in0 * pixels[a] + in1 * pixels[b]) + below * (in0 * pixels[c] + in1 * pixels[d]);
      found[to + 1] = above * (in0 * pixels[a + 1] + in1 * pixels[b + 1]) + below * (in0 * pixels[c + 1] + in1 * pixels[d + 1]);
      found[to + 2] = above * (in0 * pixels[a + 2] + in1 * pixels[b + 2]) + below * (in0 * pixels[c + 2] + in1 * pixels[d + 2]);
    }
  };
})();
