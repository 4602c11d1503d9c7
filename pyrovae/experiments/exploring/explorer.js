// A trained model to play with: the widget of a notebook (anywidget's contract: `render` with a model and an element), and
// the page of `pyrovae explore`, where this file is loaded with a token and asks its own server.

const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b08800", "#56b4e9", "#7a5195", "#8c564b", "#6b8e23", "#e0567a"];
const FIRST_UNITS = 12;
const CLICK = 4, NEAR = 14, STEPS_ACROSS = 40;

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};
const button = (text, act) => element("button", { type: "button", textContent: text, onclick: act });
const labelled = (text, control) => element("label", {}, element("span", { textContent: text }), control);
const picture = (label) => element("canvas", { className: "picture", role: "img", "aria-label": label, width: 1, height: 1 });
const nats = (value) => `${value.toFixed(2)} nats`;

// Questions are messages with a number, answered by a message with the same number.
function channel(model) {
  // Several views of one widget hear each other's answers.
  const waiting = new Map(), name = Math.random().toString(36).slice(2);
  let last = 0;
  model.on("msg:custom", ({ id, answer }) => {
    waiting.get(id)?.(answer);
    waiting.delete(id);
  });
  return (question, values = {}) =>
    new Promise((resolve, reject) => {
      const id = `${name}-${++last}`;
      waiting.set(id, (answer) => (answer.error ? reject(new Error(answer.error)) : resolve(answer)));
      model.send({ ...values, question, id });
    });
}

// What a notebook gives a widget, over a server of our own.
function overHttp(token) {
  const listeners = [], traits = new Map();
  return {
    get: (name) => traits.get(name),
    set: (name, value) => traits.set(name, value),
    save_changes: () => {},
    on: (_, listener) => listeners.push(listener),
    send: async (message) => {
      let answer = { error: "the server has stopped: start 'pyrovae explore' again" };
      try {
        const headers = { "Content-Type": "application/json", "X-Token": token };
        const response = await fetch("ask", { method: "POST", headers, body: JSON.stringify(message) });
        answer = response.status === 403 ? { error: "refused: open the address that was printed" } : await response.json();
      } catch {
        // No answer: the server has stopped.
      }
      for (const listener of listeners) listener({ id: message.id, answer });
    },
  };
}

// One call at a time, and of those that come meanwhile the last one alone.
function latest(task) {
  let running = false, next = null;
  return async (...values) => {
    next = values;
    if (running) return;
    running = true;
    try {
      while (next) {
        const now = next;
        next = null;
        await task(...now);
      }
    } finally {
      running = false;
    }
  };
}

function paint(canvas, text, [channels, height, width]) {
  const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  const pixels = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    for (let color = 0; color < 3; color++) pixels.data[4 * at + color] = bytes[at * channels + (channels === 1 ? 0 : color)];
    pixels.data[4 * at + 3] = 255;
  }
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function section(title, ...children) {
  return element("section", { "aria-label": title }, element("h2", { textContent: title }), ...children);
}

// The state of a page, and what every part of it does: `show` what was decoded, `pin` an image, `attempt` a question.
function pageOf(model, about) {
  const page = {
    about,
    ask: channel(model),
    latents: null,
    scales: null,
    posterior: null,
    pins: {},
    mover: null,
    decoded: picture("The decoded image"),
    status: element("p", { className: "status", role: "status", "aria-live": "polite" }),
    listeners: [],
  };
  page.attempt = async (task) => {
    try {
      await task();
      page.status.textContent = "";
    } catch (error) {
      page.status.textContent = error.message;
    }
  };
  page.show = ({ latents, image }) => {
    page.latents = latents;
    paint(page.decoded, image, page.about.shape);
    model.set("latents", latents);
    model.save_changes();
    for (const changed of page.listeners) changed();
  };
  // What is asked depends on the latents of that moment: an answer may have come since.
  const answered = latest((mover, question, values) =>
    page.attempt(async () => {
      const answer = await page.ask(question, { latents: page.latents, ...values() }).finally(() => {
        if (page.mover === mover) page.mover = null;
      });
      page.show(answer);
    }),
  );
  // What moved last (a slider, the place of a map) is ahead of the latents until its answer comes: `page.mover.control`.
  page.move = (question, values, control) => {
    page.mover = { control };
    answered(page.mover, question, values);
  };
  return page;
}

// ---- the map

function mapOf(page) {
  const { about } = page;
  const layers = Object.keys(about.sizes).reverse();
  const map = { points: [], view: null, hovered: -1, place: null, aim: null };
  const canvas = element("canvas", {
    className: "map",
    tabIndex: 0,
    role: "application",
    "aria-label":
      "Map of encodings. Arrow keys move the point that is decoded, with Shift the view; plus and minus zoom, 0 shows all; " +
      "Enter pins the nearest image as A, with Shift as B.",
  });
  const hint = element("figure", { className: "hint", hidden: true }, picture("The image under the pointer"), element("figcaption"));
  const layer = element("select", {}, ...layers.map((name) => element("option", { value: name, textContent: name })));
  const across = element("select"), up = element("select");
  const axes = () => (across.value === "components" ? "components" : [Number(across.value), Number(up.value)]);
  const place = () => ({ layer: layer.value, axes: axes() });

  const fillUnits = () => {
    const names = unitsInOrder(page, layer.value).map((unit) => [String(unit), `unit ${unit + 1}`]);
    const fill = (select, choices) =>
      select.replaceChildren(...choices.map(([value, textContent]) => element("option", { value, textContent })));
    fill(across, about.sizes[layer.value] > 1 ? [["components", "two principal components"], ...names] : names);
    fill(up, names);
    if (names.length > 1) up.selectedIndex = 1;
  };
  const load = latest(() =>
    page.attempt(async () => {
      up.disabled = across.value === "components";
      const asked = place();
      Object.assign(map, await page.ask("map", asked), { place: asked });
      showAll();
    }),
  );
  const showAll = () => {
    const [xs, ys] = [0, 1].map((axis) => map.points.map((point) => point[axis]));
    const span = Math.max(1e-3, ...[xs, ys].map((each) => Math.max(...each) - Math.min(...each)));
    const middle = (each) => (Math.max(...each) + Math.min(...each)) / 2;
    map.view = { x: middle(xs), y: middle(ys), span: 1.1 * span };
    draw();
  };
  const size = () => canvas.clientWidth || 320;
  const toScreen = ([x, y]) => {
    const scale = size() / map.view.span;
    return [size() / 2 + (x - map.view.x) * scale, size() / 2 - (y - map.view.y) * scale];
  };
  const toPlane = ([x, y]) => {
    const scale = map.view.span / size();
    return [map.view.x + (x - size() / 2) * scale, map.view.y - (y - size() / 2) * scale];
  };
  // Where the latents that are decoded lie on the map.
  map.here = () =>
    map.directions.map((direction) =>
      direction.reduce((sum, each, unit) => sum + each * (page.latents[map.place.layer][unit] - map.center[unit]), 0),
    );
  const nearest = ([x, y]) => {
    let best = -1, distance = Infinity;
    map.points.forEach((point, index) => {
      const [left, top] = toScreen(point), away = Math.hypot(left - x, top - y);
      if (away < distance) [best, distance] = [index, away];
    });
    return { index: best, distance };
  };
  const draw = () => {
    if (!map.view) return;
    const ratio = window.devicePixelRatio || 1, style = getComputedStyle(canvas);
    canvas.width = canvas.height = Math.round(size() * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    map.points.forEach((point, index) => {
      const [x, y] = toScreen(point);
      pen.fillStyle = colorOf(page, index);
      pen.globalAlpha = index === map.hovered ? 1 : 0.65;
      pen.beginPath();
      pen.arc(x, y, index === map.hovered ? 6 : 3, 0, 2 * Math.PI);
      pen.fill();
    });
    pen.globalAlpha = 1;
    pen.strokeStyle = pen.fillStyle = style.color;
    pen.font = `bold 14px ${style.fontFamily}`;
    for (const [name, pin] of Object.entries(page.pins)) {
      if (pin.index === undefined) continue;
      const [x, y] = toScreen(map.points[pin.index]);
      pen.beginPath();
      pen.arc(x, y, 7, 0, 2 * Math.PI);
      pen.stroke();
      pen.fillText(name, x + 9, y - 7);
    }
    if (page.latents) {
      const [x, y] = toScreen(map.here());
      pen.lineWidth = 2;
      pen.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        pen.moveTo(x + 4 * dx, y + 4 * dy);
        pen.lineTo(x + 11 * dx, y + 11 * dy);
      }
      pen.stroke();
    }
    canvas.dataset.names = map.names.join(", ");
  };
  const zoom = (factor, around) => {
    const fixed = toPlane(around), { view } = map;
    map.view = { x: fixed[0] + (view.x - fixed[0]) * factor, y: fixed[1] + (view.y - fixed[1]) * factor, span: view.span * factor };
    draw();
  };
  const middle = () => [size() / 2, size() / 2];
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const hover = latest(async (index, [x, y]) => {
    const { image } = await page.ask("image", { index }).catch(() => ({}));
    if (map.hovered !== index || !image) return;
    paint(hint.querySelector("canvas"), image, about.shape);
    hint.querySelector("figcaption").textContent = nameOf(page, index);
    hint.hidden = false;
    hint.style.left = `${Math.min(x + 12, size() - 100)}px`;
    hint.style.top = `${Math.max(0, y - 100)}px`;
  });
  const goTo = (point) => {
    map.aim = point;
    page.move("go_to", () => ({ ...map.place, point }), map.place);
  };
  const aim = () => (page.mover?.control === map.place ? map.aim : map.here());
  const leave = () => {
    map.hovered = -1;
    hint.hidden = true;
    draw();
  };

  let start = null, dragged = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    [start, dragged] = [at(event), false];
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = at(event);
    if (start) {
      dragged ||= Math.hypot(here[0] - start[0], here[1] - start[1]) > CLICK;
      if (dragged) goTo(toPlane(here));
      return;
    }
    const { index, distance } = nearest(here);
    if (distance > NEAR) return leave();
    if (index !== map.hovered) {
      map.hovered = index;
      draw();
      hover(index, here);
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const here = at(event), { index, distance } = nearest(here);
    if (start && !dragged) {
      if (distance <= NEAR) page.pin(event.shiftKey ? "B" : "A", { index });
      else goTo(toPlane(here));
    }
    start = null;
  });
  canvas.addEventListener("pointercancel", () => (start = null));
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, at(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const step = map.view.span / STEPS_ACROSS, direction = arrows[event.key];
    if (direction && event.shiftKey) {
      map.view = { ...map.view, x: map.view.x + 4 * step * direction[0], y: map.view.y + 4 * step * direction[1] };
      draw();
    } else if (direction) {
      const [x, y] = aim();
      goTo([x + step * direction[0], y + step * direction[1]]);
    } else if (event.key === "Enter") {
      page.pin(event.shiftKey ? "B" : "A", { index: nearest(toScreen(map.here())).index });
    } else if (event.key === "+" || event.key === "=") zoom(1 / 1.3, toScreen(map.here()));
    else if (event.key === "-") zoom(1.3, toScreen(map.here()));
    else if (event.key === "0") showAll();
    else return;
    event.preventDefault();
  });
  layer.onchange = () => (fillUnits(), load());
  across.onchange = up.onchange = load;
  page.listeners.push(draw);
  new ResizeObserver(draw).observe(canvas);
  fillUnits();
  map.load = load;
  map.part = section(
    "Map of encodings",
    element("div", { className: "controls" }, labelled("Layer", layer), labelled("Across", across), labelled("Up", up),
      button("Zoom in", () => zoom(1 / 1.3, middle())), button("Zoom out", () => zoom(1.3, middle())), button("Show all", showAll)),
    element("div", { className: "around" }, canvas, hint),
    legendOf(page),
    element("p", { className: "help", textContent:
      "Each point is a test image at its posterior. Point at one to see it, click to pin it as A (with Shift as B), drag to " +
      "decode along the way; by keyboard: arrows, Enter, + and -." }),
  );
  return map;
}

const classesOf = (page) => [...new Set(page.about.classes ?? [])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
const nameOf = (page, index) => `image ${page.about.points[index]}${page.about.classes ? `, class ${page.about.classes[index]}` : ""}`;
const colorOf = (page, index) =>
  COLORS[page.about.classes ? classesCache(page).indexOf(page.about.classes[index]) % COLORS.length : 0];
const classesCache = (page) => (page.known ??= classesOf(page));

function legendOf(page) {
  const entries = classesCache(page).map((name, number) => {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = COLORS[number % COLORS.length];
    return element("li", {}, swatch, name);
  });
  return element("ul", { className: "legend", "aria-label": "Classes" }, ...entries);
}

// ---- images that are pinned

function pinnedOf(page) {
  const { about } = page;
  const share = element("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, disabled: true });
  const samples = element("select", {}, ...[100, 500, 5000].map((each) => element("option", { value: each, textContent: each })));
  samples.value = 500;
  const slots = {};
  for (const name of ["A", "B"]) {
    slots[name] = {
      image: picture(`Image ${name}`),
      reconstruction: picture(`Reconstruction of image ${name}`),
      text: element("p", { className: "figures", textContent: name === "A" ? "" : "Pin a second image to interpolate." }),
    };
  }
  const measure = async (name) => {
    const pin = page.pins[name], { text } = slots[name];
    text.textContent = `${pin.title}: measuring ...`;
    const { of } = pin;
    await page.attempt(async () => {
      const found = await page.ask("measure", { ...of, samples: Number(samples.value) });
      if (page.pins[name].of !== of) return;
      const error = found.standard_error === null ? "" : ` ± ${found.standard_error.toFixed(2)}`;
      const log = found.log_likelihood === null ? "a loss that is no density" : `log p(x) ${found.log_likelihood.toFixed(2)}${error} nats`;
      text.textContent = `${pin.title}: ELBO ${nats(found.elbo)}, ${log} (${found.samples} samples)`;
      text.dataset.logLikelihood = found.log_likelihood ?? "";
    });
  };
  page.take = (name, of, title, image, answer) => {
    page.pins[name] = { of, title, index: of.index, latents: answer.latents };
    paint(slots[name].image, image, about.shape);
    paint(slots[name].reconstruction, answer.image, about.shape);
    if (name === "A") [page.posterior, page.scales] = [answer.latents, answer.scales];
    share.disabled = !(page.pins.A && page.pins.B);
    share.value = name === "A" ? 0 : 1;
    page.show(answer);
    return measure(name);
  };
  // A number of the map, or a drawing: its posterior is decoded, and what it scores is measured after.
  page.pin = (name, of) =>
    page.attempt(async () => {
      const answer = await page.ask("encode", of);
      await page.take(name, of, of.drawn ? "drawing" : nameOf(page, of.index), answer.encoded, answer);
    });
  share.oninput = () =>
    page.move("interpolate", () => ({ first: page.pins.A.latents, second: page.pins.B.latents, share: share.valueAsNumber }));
  samples.onchange = () => Object.keys(page.pins).forEach(measure);
  const shown = Object.entries(slots).map(([name, { image, reconstruction, text }]) =>
    element("div", { className: "pin" },
      element("h3", { textContent: name }),
      element("figure", {}, image, element("figcaption", { textContent: "image" })),
      element("figure", {}, reconstruction, element("figcaption", { textContent: "reconstruction" })),
      text));
  return section(
    "Pinned images",
    ...shown,
    element("div", { className: "controls" }, labelled("Between A and B", share), labelled("Importance samples", samples)),
  );
}

// ---- the latents

function unitsInOrder(page, layer) {
  const by = page.about.kl[layer] ?? page.about.spread[layer];
  return by.map((_, unit) => unit).sort((a, b) => by[b] - by[a]);
}

function slidersOf(page) {
  const parts = Object.keys(page.about.sizes).reverse().map((layer) => layerOf(page, layer));
  return section("Latents, from the top layer down", ...parts);
}

function layerOf(page, layer) {
  const { about } = page, kl = about.kl[layer], reach = about.reach[layer];
  const rows = unitsInOrder(page, layer).map((unit) => {
    const slider = element("input", { type: "range", min: -reach, max: reach, step: reach / 200 });
    const mark = element("span", { className: "mark", "aria-hidden": true }), value = element("output");
    slider.oninput = () => {
      const value = slider.valueAsNumber;
      const moved = () => page.latents[layer].map((each, other) => (other === unit ? value : each));
      page.move("set_layer", () => ({ layer, new: moved() }), slider);
    };
    const worth = kl ? `KL ${kl[unit].toFixed(2)}` : `variance ${about.spread[layer][unit].toFixed(2)}`;
    slider.setAttribute("aria-label", `${layer} unit ${unit + 1}, ${worth}`);
    slider.dataset.unit = `${layer} ${unit}`;
    const row = element("div", { className: "unit" },
      element("span", { textContent: `${unit + 1}` }), element("span", { className: "worth", textContent: worth }),
      element("span", { className: "track" }, slider, mark), value);
    page.listeners.push(() => {
      const now = page.latents[layer][unit];
      if (page.mover?.control !== slider) slider.value = now;
      value.textContent = now.toFixed(2);
      const known = page.posterior?.[layer][unit];
      mark.hidden = known === undefined;
      if (known === undefined) return;
      const share = Math.min(1, Math.max(0, (known + reach) / (2 * reach)));
      mark.style.left = `calc(8px + (100% - 16px) * ${share.toFixed(4)})`;
      slider.title = `posterior of A: ${known.toFixed(2)} ± ${page.scales[layer][unit].toFixed(2)}`;
    });
    return row;
  });
  const total = kl ? `KL ${nats(kl.reduce((sum, each) => sum + each, 0))}` : "under a mixture: units sorted by variance";
  const hidden = rows.slice(FIRST_UNITS);
  hidden.forEach((row) => (row.hidden = true));
  const all = button(`Show all ${rows.length} units`, () => {
    hidden.forEach((row) => (row.hidden = !row.hidden));
    all.textContent = hidden[0].hidden ? `Show all ${rows.length} units` : `Show the first ${FIRST_UNITS}`;
  });
  return element("fieldset", {},
    element("legend", { textContent: `${layer}: ${rows.length} units, ${total}` }),
    button(`Resample ${layer}`, () => page.move("resample", () => ({ layer }))),
    ...rows,
    ...(hidden.length ? [all] : []));
}

// ---- drawing

function drawingOf(page) {
  const [channels, height, width] = page.about.shape;
  const ink = new Float32Array(width * height);
  const canvas = element("canvas", {
    className: "drawing", tabIndex: 0, role: "application",
    "aria-label": "Drawing. Arrow keys move the pen, Space sets it down or lifts it, Delete clears; what is drawn is measured.",
  });
  const pen = { x: width / 2, y: height / 2, down: false };
  const show = () => {
    paint(canvas, textOf(), page.about.shape);
    const context = canvas.getContext("2d");
    if (document.activeElement !== canvas) return;
    context.fillStyle = pen.down ? "#e0567a" : "#56b4e9";
    context.fillRect(Math.floor(pen.x), Math.floor(pen.y), 1, 1);
  };
  const textOf = () => {
    let bytes = "";
    for (const each of ink) bytes += String.fromCharCode(Math.round(255 * each)).repeat(channels);
    return btoa(bytes);
  };
  // A round brush with a soft edge, a fifteenth of the picture wide.
  const dab = (x, y) => {
    const radius = Math.max(0.8, width / 22);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const away = Math.hypot(column + 0.5 - x, row + 0.5 - y);
        ink[row * width + column] = Math.max(ink[row * width + column], Math.min(1, Math.max(0, radius + 0.5 - away)));
      }
    }
  };
  const measured = latest(() => {
    return page.pin("A", { drawn: textOf() });
  });
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  };
  const stroke = (to) => {
    const steps = Math.ceil(2 * Math.hypot(to[0] - pen.x, to[1] - pen.y)) || 1;
    for (let step = 0; step <= steps; step++) {
      dab(pen.x + ((to[0] - pen.x) * step) / steps, pen.y + ((to[1] - pen.y) * step) / steps);
    }
    [pen.x, pen.y] = to;
    show();
  };
  let drawing = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drawing = true;
    [pen.x, pen.y] = at(event);
    stroke(at(event));
  });
  canvas.addEventListener("pointermove", (event) => drawing && stroke(at(event)));
  canvas.addEventListener("pointerup", () => {
    if (drawing) measured();
    drawing = false;
  });
  canvas.addEventListener("pointercancel", () => (drawing = false));
  const clear = () => {
    ink.fill(0);
    show();
  };
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      const to = [Math.min(width, Math.max(0, pen.x + step[0])), Math.min(height, Math.max(0, pen.y + step[1]))];
      if (pen.down) stroke(to);
      else [pen.x, pen.y] = to;
    } else if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) stroke([pen.x, pen.y]);
      else measured();
    } else if (event.key === "Delete" || event.key === "Backspace") clear();
    else return;
    event.preventDefault();
    show();
  });
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", show);
  show();
  return section(
    "Draw an image",
    canvas,
    element("div", { className: "controls" }, button("Clear", clear)),
    element("p", { className: "help", textContent:
      "Draw with mouse or finger, or by keyboard: arrows, Space, Delete. What you draw becomes A: its posterior, its " +
      "reconstruction, its ELBO and log p(x)." }),
  );
}

// ---- pseudo-inputs

async function pseudoInputsOf(page) {
  const { images } = await page.ask("pseudo_inputs");
  const buttons = images.map((image, index) => {
    const canvas = picture("");
    paint(canvas, image, page.about.shape);
    const start = button("", () => page.attempt(async () => {
      const answer = await page.ask("begin_at", { index });
      [page.posterior, page.scales] = [answer.latents, answer.scales];
      page.show(answer);
    }));
    start.setAttribute("aria-label", `Start at pseudo-input ${index + 1}`);
    start.append(canvas);
    return start;
  });
  return section("Start at a pseudo-input of the VampPrior", element("div", { className: "strip" }, ...buttons));
}

// ---- the page

function decodedOf(page) {
  const help = element("p", { className: "help", textContent: "The mean of p(x given z) at these latents." });
  const part = section("Decoded", page.decoded, help);
  part.classList.add("decoded");
  return part;
}

async function render({ model, el }) {
  el.classList.add("pyrovae-explorer");
  const waiting = element("p", { textContent: "Encoding the test images ...", role: "status" });
  el.replaceChildren(waiting);
  const page = pageOf(model, null);
  try {
    page.about = await page.ask("begin");
  } catch (error) {
    waiting.textContent = error.message;
    return;
  }
  const map = mapOf(page);
  el.replaceChildren(
    element("header", {}, element("h1", { textContent: page.about.title }), element("p", { textContent: page.about.about })),
    page.status,
    element("div", { className: "columns" },
      element("div", {}, map.part, ...(page.about.pseudo_inputs ? [await pseudoInputsOf(page)] : [])),
      element("div", {},
        decodedOf(page),
        pinnedOf(page),
        drawingOf(page)),
      element("div", { className: "layers" }, slidersOf(page))),
  );
  await map.load();
  await page.pin("A", { index: 0 });
}

export default { render };

const token = new URL(import.meta.url).searchParams.get("token");
if (token) {
  const model = overHttp(token);
  window.explorer = model;
  render({ model, el: document.getElementById("explorer") });
}
