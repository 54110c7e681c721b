"use strict";

// Bilinear sampling without a graphics processor: the source points of one row of the output, then its samples.
(() => {
  const HORIZON = 1e-12; // smallest denominator of a homography

  /** Rows of a matrix: both coordinates are linear in the column, but for a denominator. */
  const rowsOfMatrix = (matrix, w, h) => (theta) => {
    const m = Playground.inPixels(matrix(theta, [w, h]), w, h);
    const affine = m[6] === 0 && m[7] === 0 && m[8] === 1;
    return (row, xs, ys) => {
      const [x, y, z] = [m[1] * row + m[2], m[4] * row + m[5], m[7] * row + m[8]];
      for (let column = 0; column < w; column++) {
        const below = m[6] * column + z;
        const scale = affine ? 1 : 1 / (Math.abs(below) < HORIZON ? HORIZON : below);
        xs[column] = (m[0] * column + x) * scale;
        ys[column] = (m[3] * column + y) * scale;
      }
    };
  };

  /** The first control point and the weights of each of n pixels along one axis of a lattice. */
  function tapsOf({ count, taps, place, kernel }, n) {
    const [first, weights] = [new Int32Array(n), new Float64Array(n * taps)];
    for (let i = 0; i < n; i++) {
      const at = place((2 * i + 1) / n - 1);
      first[i] = Math.min(Math.max(Math.floor(at) - taps / 2 + 1, 0), count - taps);
      for (let tap = 0; tap < taps; tap++) weights[i * taps + tap] = kernel(Math.abs(at - first[i] - tap));
    }
    return { first, weights };
  }

  /** Rows of a lattice: its rows of control points are blended once per row of pixels. */
  function rowsOfLattice(lattice, w, h) {
    const { count, taps } = lattice;
    const [across, down] = [tapsOf(lattice, w), tapsOf(lattice, h)];
    const [dx, dy] = [new Float64Array(count), new Float64Array(count)];
    return (theta) => (row, xs, ys) => {
      dx.fill(0);
      dy.fill(0);
      for (let tap = 0; tap < taps; tap++) {
        const weight = down.weights[row * taps + tap];
        for (let k = 0, at = 2 * count * (down.first[row] + tap); k < count; k++, at += 2) {
          dx[k] += (weight * theta[at] * w) / 2;
          dy[k] += (weight * theta[at + 1] * h) / 2;
        }
      }
      const { first, weights } = across;
      for (let column = 0, at = 0; column < w; column++, at += taps) {
        const start = first[column];
        let x = column + weights[at] * dx[start] + weights[at + 1] * dx[start + 1];
        let y = row + weights[at] * dy[start] + weights[at + 1] * dy[start + 1];
        if (taps === 4) {
          x += weights[at + 2] * dx[start + 2] + weights[at + 3] * dx[start + 3];
          y += weights[at + 2] * dy[start + 2] + weights[at + 3] * dy[start + 3];
        }
        xs[column] = x;
        ys[column] = y;
      }
    };
  }

  /**
   * Rows of a spline, whose weights differ from zero everywhere. They are computed once, and the displacements of all
   * pixels are kept: a control point that moved adds its weights times its motion.
   */
  function rowsOfSpline({ points, weightsAt }, w, h) {
    const all = points.map(() => new Float32Array(w * h));
    const weights = new Float64Array(points.length);
    for (let i = 0; i < w * h; i++) {
      weightsAt((2 * (i % w) + 1) / w - 1, (2 * Math.floor(i / w) + 1) / h - 1, weights);
      for (let j = 0; j < points.length; j++) all[j][i] = weights[j];
    }
    const [dx, dy, kept] = [new Float64Array(w * h), new Float64Array(w * h), new Float64Array(2 * points.length)];
    const move = (weights, x, y) => {
      for (let i = 0; i < weights.length; i++) {
        dx[i] += weights[i] * x;
        dy[i] += weights[i] * y;
      }
    };
    return (theta) => {
      all.forEach((weights, j) => {
        const [x, y] = [theta[2 * j] - kept[2 * j], theta[2 * j + 1] - kept[2 * j + 1]];
        if (x || y) move(weights, (x * w) / 2, (y * h) / 2);
      });
      kept.set(theta);
      return (row, xs, ys) => {
        for (let column = 0, i = row * w; column < w; column++, i++) {
          xs[column] = column + dx[i];
          ys[column] = row + dy[i];
        }
      };
    };
  }

  let last = {}; // what the last family prepared for the last size

  function rowsOf(family, w, h) {
    if (last.family === family && last.w === w && last.h === h) return last.rows;
    const { matrix, lattice, spline } = family;
    const rows = matrix ? rowsOfMatrix(matrix, w, h) : lattice ? rowsOfLattice(lattice, w, h) : rowsOfSpline(spline, w, h);
    last = { family, w, h, rows };
    return rows;
  }

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const one = new Float64Array(3);

  /** A sample of R, G, B anywhere, in `one`. Outside the input: zeros, or the border. */
  function sampleAt(pixels, w, h, x, y, border) {
    one.fill(0);
    if (border) {
      x = clamp(x, 0, w - 1);
      y = clamp(y, 0, h - 1);
    } else if (!(x > -1 && y > -1 && x < w && y < h)) return;
    const [left, top] = [Math.floor(x), Math.floor(y)];
    for (let k = 0; k < 4; k++) {
      const [column, row] = [left + (k & 1), top + (k >> 1)];
      if (column < 0 || row < 0 || column >= w || row >= h) continue;
      const weight = (k & 1 ? x - left : 1 - x + left) * (k >> 1 ? y - top : 1 - y + top);
      for (let c = 0; c < 3; c++) one[c] += weight * pixels[4 * (row * w + column) + c];
    }
  }

  /** Samples of a row of points, before rounding: R, G, B in `floats` from 3 * at. Tests read them. */
  function floatsOfRow(pixels, w, h, xs, ys, border, floats, at) {
    for (let k = 0; k < w; k++, at++) {
      sampleAt(pixels, w, h, xs[k], ys[k], border);
      floats.set(one, 3 * at);
    }
  }

  const BLACK = 0xff000000;

  /**
   * The same for each `step`-th point, rounded, four bytes as one number (little-endian, as all browsers have it). A
   * redraw is this loop above all: in it nothing is allocated, and no function is called.
   */
  function bytesOfRow(colors, pixels, w, h, xs, ys, border, bytes, at, step) {
    const [right, bottom] = [w - 1, h - 1];
    for (let k = 0; k < w; k += step, at++) {
      let x = xs[k];
      let y = ys[k];
      if (border) {
        x = x > 0 ? (x < right ? x : right) : 0;
        y = y > 0 ? (y < bottom ? y : bottom) : 0;
      } else if (!(x >= 0 && y >= 0 && x <= right && y <= bottom)) {
        bytes[at] = BLACK;
        if (x > -1 && y > -1 && x < w && y < h) {
          sampleAt(pixels, w, h, x, y, false);
          bytes[at] = BLACK | ((one[2] + 0.5) << 16) | ((one[1] + 0.5) << 8) | (one[0] + 0.5);
        }
        continue;
      }
      let left = x | 0;
      let top = y | 0;
      if (left === right) left = right - 1; // what is read stays inside the picture
      if (top === bottom) top = bottom - 1;
      const u = x - left;
      const v = y - top;
      const i = top * w + left;
      const a = colors[i];
      const b = colors[i + 1];
      const c = colors[i + w];
      const d = colors[i + w + 1];
      const of_d = u * v;
      const of_c = v - of_d;
      const of_b = u - of_d;
      const of_a = 1 - u - of_c;
      const red = of_a * (a & 255) + of_b * (b & 255) + of_c * (c & 255) + of_d * (d & 255) + 0.5;
      const green =
        of_a * ((a >> 8) & 255) + of_b * ((b >> 8) & 255) + of_c * ((c >> 8) & 255) + of_d * ((d >> 8) & 255) + 0.5;
      const blue =
        of_a * ((a >> 16) & 255) + of_b * ((b >> 16) & 255) + of_c * ((c >> 16) & 255) + of_d * ((d >> 16) & 255) + 0.5;
      bytes[at] = BLACK | ((blue | 0) << 16) | ((green | 0) << 8) | (red | 0);
    }
  }

  /**
   * Warp a picture of w x h: into `bytes` (Uint32Array, RGBA), or if it is null into `floats` (Float32Array, RGB). Of the
   * output each `step`-th row and column is written.
   */
  Playground.warp = (family, theta, { pixels, w, h }, border, bytes, floats, step = 1) => {
    const points = rowsOf(family, w, h)(theta);
    const [xs, ys] = [new Float64Array(w), new Float64Array(w)];
    const across = Math.ceil(w / step);
    const colors = new Int32Array(pixels.buffer, pixels.byteOffset, w * h);
    for (let row = 0, at = 0; row < h; row += step, at += across) {
      points(row, xs, ys);
      if (bytes) bytesOfRow(colors, pixels, w, h, xs, ys, border, bytes, at, step);
      else floatsOfRow(pixels, w, h, xs, ys, border, floats, at);
    }
  };

  const ENOUGH = 10; // milliseconds of a frame for the output, at 60 frames per second

  /**
   * A function that draws a warped picture on this canvas. It returns whether it drew all pixels: while a picture moves
   * it draws every second one of each axis, if all would take too long, and the browser enlarges the canvas.
   */
  Playground.onCanvas = (canvas) => {
    const context = canvas.getContext("2d");
    let image = null;
    const draw = (family, theta, picture, border, moves = false) => {
      const step = moves && draw.cost > ENOUGH ? 2 : 1;
      const [w, h] = [picture.w, picture.h].map((n) => Math.ceil(n / step));
      if (!image || image.width !== w || image.height !== h) image = new ImageData(w, h);
      if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
      const start = performance.now();
      Playground.warp(family, theta, picture, border, new Uint32Array(image.data.buffer), null, step);
      const took = performance.now() - start;
      // All pixels take at most four times as long. The margin keeps the picture from changing back and forth.
      if (step === 1) draw.cost = took;
      else if (4 * took < 0.75 * ENOUGH) draw.cost = 4 * took;
      context.putImageData(image, 0, 0);
      return step === 1;
    };
    return Object.assign(draw, { cost: 0 });
  };
})();
