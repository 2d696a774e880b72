// Draws a projection (views/embeddings.py) into `element`: the same texts before and after in one plane. No library; every text is set as text, never as HTML.
function drawProjection(element, view) {
  const ring = (n, turn, ...radii) => Array.from({length: n}, (_, i) => [Math.sin((turn + i / n) * 2 * Math.PI), -Math.cos((turn + i / n) * 2 * Math.PI)].map((v) => v * radii[i % radii.length]));
  const cross = [[-4, -13], [4, -13], [4, -4], [13, -4], [13, 4], [4, 4], [4, 13], [-4, 13], [-4, 4], [-13, 4], [-13, -4], [-4, -4]].map(([x, y]) => [x / 10, y / 10]);
  const SHAPES = {
    circle: ring(32, 0, 1), "triangle-up": ring(3, 0, 1.4), square: ring(4, 0.125, 1.3), diamond: ring(4, 0, 1.35), hexagon: ring(6, 0, 1.15), star: ring(10, 0, 1.5, 0.65),
    cross, x: cross.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]),
  };
  const LISTED = 50, REACH = 14, EDGE = 14; // rows of the list; pixels
  let high = 420;
  const N = view.texts.length, both = view.planes.length > 1, ratio = window.devicePixelRatio || 1;
  const radius = N > 2000 ? 2.6 : 3.6, opacity = N > 2000 ? 0.6 : 0.8;
  const kept = element.projectionKept ??= {hidden: new Set(), asked: ""}; // what holds when another projection is drawn
  const tell = (name, index) => element.dispatchEvent(new CustomEvent(name, {bubbles: true, detail: {index}}));

  function make(tag, className, ...content) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...content);
    return made;
  }
  function button(className, press, ...content) {
    const made = make("button", className, ...content);
    made.type = "button";
    made.onclick = press;
    return made;
  }
  function drawing(color, shape, alpha = 1, r = 5) { // of a mark
    const canvas = make("canvas"), side = 2 * Math.ceil(1.6 * r * ratio) + 1, context = canvas.getContext("2d");
    canvas.width = canvas.height = side;
    canvas.style.width = canvas.style.height = `${side / ratio}px`;
    canvas.setAttribute("aria-hidden", "true");
    context.translate(side / 2, side / 2);
    context.globalAlpha = alpha;
    context.fillStyle = color;
    context.beginPath();
    for (const [x, y] of SHAPES[shape]) context.lineTo(x * r * ratio, y * r * ratio);
    context.fill();
    return canvas;
  }
  function stamp(color, shape, alpha) { // the pixels of a mark from its middle, and how much of each it covers, in 256ths: drawn once, put at each of its places
    const canvas = drawing(color, shape, alpha, radius), side = canvas.width, {data} = canvas.getContext("2d").getImageData(0, 0, side, side), pixels = [];
    for (let i = 0; i < side * side; i++) if (data[4 * i + 3] > 4) pixels.push([i % side - (side >> 1), Math.floor(i / side) - (side >> 1), data[4 * i + 3]]);
    return {pixels, cover: Uint8Array.from(pixels, ([, , cover]) => cover), rgb: [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16))};
  }

  const of = view.of_set.map((set, i) => set * view.classes.length + view.of_class[i]); // kind of each text: its set and class
  const stamps = [1, 0.15].map((share) => view.sets.flatMap((set) => view.classes.map((c) => stamp(set.color, c.shape, share * opacity))));
  const margin = Math.ceil(1.6 * radius * ratio) + 1; // of a picture, so that each mark whose middle is in view lies in it
  const order = view.sets.flatMap((_, set) => view.of_set.flatMap((s, i) => (s === set ? [i] : []))); // the last sets on top
  const look = {x: 0.5, y: 0.5, zoom: 1};
  let share = 1; // of the way from before to after, in the last panel
  let shown = [], dim = [], lit = [], chosen = null, pointed = null, drag = null, lassoing = false, playing = 0, asked = 0, moved = true;

  // ---------------------------------------------------------------- what stands on the page
  const root = make("section", "mbtsad projection"), legend = make("div", "legend"), tools = make("div", "tools"), row = make("div", "planes"), list = make("ol", "found");
  root.setAttribute("aria-label", "Where texts lie");
  const said = make("p", "said muted");
  said.setAttribute("role", "status");
  legend.setAttribute("role", "group");
  legend.setAttribute("aria-label", "Sets and classes of texts, shown or hidden");
  for (const [group, number, mark] of [["sets", view.of_set, (kind) => drawing(kind.color, "circle")], ["classes", view.of_class, (kind) => drawing("#808895", kind.shape)]]) {
    const box = make("span", "kinds", make("span", "muted", group === "sets" ? "color: set" : "shape: class"));
    view[group].forEach((kind, k) => {
      const key = `${group} ${kind.name}`, toggle = button("kind", () => {
        kept.hidden.has(key) ? kept.hidden.delete(key) : kept.hidden.add(key);
        toggle.setAttribute("aria-pressed", String(!kept.hidden.has(key)));
        arrange();
      }, mark(kind), make("b", "", kind.name), make("span", "muted", String(number.filter((n) => n === k).length)));
      toggle.setAttribute("aria-pressed", String(!kept.hidden.has(key)));
      box.append(toggle);
    });
    legend.append(box);
  }
  const search = make("input");
  search.type = "search";
  search.value = kept.asked;
  search.placeholder = "Search the texts";
  search.setAttribute("aria-label", "Search the texts");
  search.oninput = () => {
    kept.asked = search.value;
    find();
  };
  const lasso = button("tool", () => lassoed(!lassoing), "Lasso");
  lasso.title = "Draw around points to list their texts; Shift and drag does the same";
  tools.append(search, lasso, button("tool", () => zoom(1.5), "+"), button("tool", () => zoom(1 / 1.5), "−"), button("tool", whole, "Whole picture"), button("tool", save, "Save as PNG"));
  tools.children[2].setAttribute("aria-label", "Zoom in");
  tools.children[3].setAttribute("aria-label", "Zoom out");
  const slider = make("input"), play = button("tool play", animate, "▶ Play");
  if (both) {
    slider.type = "range";
    slider.max = 100;
    slider.value = 100;
    slider.setAttribute("aria-label", `From ${view.names[0]} to ${view.names[1]}, in %`);
    slider.oninput = () => {
      stop();
      at(slider.value / 100);
    };
    tools.append(make("span", "way", play, view.names[0], slider, view.names[1]));
  }
  const tip = make("div", "tip");
  tip.hidden = true;
  const panels = view.planes.map((_, p) => {
    const figure = make("figure"), caption = make("figcaption", "", make("b", "", view.names[p])), plane = make("div", "plane"), points = make("canvas", "points"), over = make("canvas", "over");
    const panel = {p, caption, plane, points, over, width: 0};
    over.tabIndex = 0;
    over.setAttribute("role", "img");
    over.setAttribute("aria-label", `${view.names[p]}: ${view.about} Arrow keys move from point to point, Enter opens a text.`);
    points.setAttribute("aria-hidden", "true");
    plane.append(points, over);
    figure.append(caption, plane, make("div", "axis muted", `→ ${view.axes[0]}   ↑ ${view.axes[1]}`));
    listen(panel);
    row.append(figure);
    return panel;
  });
  root.append(make("p", "caption", view.title), legend, tools, row, said, list, tip);

  // ---------------------------------------------------------------- where a text lies
  const scale = (panel) => { // pixels of the panel = from + by * place, right and down
    const across = (panel.width - 2 * EDGE) * look.zoom, down = (high - 2 * EDGE) * look.zoom;
    return {x: panel.width / 2 - across * look.x, byX: across / 10000, y: high / 2 + down * look.y, byY: -down / 10000};
  };
  const planes = view.planes.map((plane) => plane.map((axis) => Float32Array.from(axis)));
  const way = (panel, axis, i) => planes[0][axis][i] + (planes[panel.p][axis][i] - planes[0][axis][i]) * share;
  const place = (panel, i, {x, byX, y, byY} = scale(panel)) => [x + byX * way(panel, 0, i), y + byY * way(panel, 1, i)];
  function nearest(panel, x, y, reach = REACH, ahead = () => true) {
    const to = scale(panel);
    let best = null, least = reach * reach;
    for (const i of shown) {
      const dx = to.x + to.byX * way(panel, 0, i) - x, dy = to.y + to.byY * way(panel, 1, i) - y, far = dx * dx + dy * dy;
      if (far >= least || !ahead(dx, dy)) continue;
      best = i;
      least = far;
    }
    return best;
  }
  function within(panel, path) { // the texts inside a closed line
    return shown.filter((i) => {
      const [x, y] = place(panel, i);
      let inside = false;
      path.forEach(([ax, ay], k) => {
        const [bx, by] = path[(k || path.length) - 1];
        if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) inside = !inside;
      });
      return inside;
    });
  }

  // ---------------------------------------------------------------- drawing
  function ask(all) { // once a frame, however often it is asked for
    moved ||= all;
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      for (const panel of panels) {
        if (moved) drawPoints(panel);
        drawOver(panel);
      }
      moved = false;
    });
  }
  function drawPoints(panel) { // pixel by pixel: 20,000 marks as images of their own would take ten times as long where there is no GPU
    const {image, points} = panel, pixels = new Uint8Array(image.data.buffer), to = scale(panel), row = image.width;
    let drawn = 0;
    new Uint32Array(pixels.buffer).fill(ground());
    for (const [texts, kinds] of [[dim, stamps[1]], [lit, stamps[0]]]) {
      for (const i of texts) {
        const x = Math.round((to.x + to.byX * way(panel, 0, i)) * ratio), y = Math.round((to.y + to.byY * way(panel, 1, i)) * ratio);
        if (x < 0 || y < 0 || x >= points.width || y >= points.height) continue;
        const {rgb: [red, green, blue], from, cover} = kinds[of[i]], middle = 4 * ((y + margin) * row + x + margin);
        for (let k = 0; k < cover.length; k++) {
          const at = middle + from[k], share = cover[k];
          pixels[at] += ((red - pixels[at]) * share) >> 8;
          pixels[at + 1] += ((green - pixels[at + 1]) * share) >> 8;
          pixels[at + 2] += ((blue - pixels[at + 2]) * share) >> 8;
        }
        drawn++;
      }
    }
    points.getContext("2d").putImageData(image, -margin, -margin);
    points.dataset.points = drawn;
  }
  function ground() { // the page's, as a pixel
    const [red, green, blue] = getComputedStyle(root).getPropertyValue("--ground").trim().slice(1).match(/../g).map((two) => parseInt(two, 16));
    return new Uint32Array(new Uint8Array([red, green, blue, 255]).buffer)[0];
  }
  function drawOver(panel) {
    const context = panel.over.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, panel.width, high);
    const outline = (trace) => {
      for (const [color, line] of [["#fff", 4], ["#000", 1.5]]) {
        context.strokeStyle = color;
        context.lineWidth = line;
        context.beginPath();
        trace();
        context.stroke();
      }
    };
    if (drag?.path && drag.panel === panel) outline(() => drag.path.forEach(([x, y]) => context.lineTo(x, y)));
    if (pointed !== null && shown.includes(pointed)) outline(() => context.arc(...place(panel, pointed), radius + 5, 0, 7));
  }
  function fit() {
    high = root.clientWidth < 480 ? 300 : 420;
    for (const panel of panels) {
      panel.width = panel.plane.clientWidth;
      for (const canvas of [panel.points, panel.over]) {
        canvas.width = Math.round(panel.width * ratio);
        canvas.height = Math.round(high * ratio);
        canvas.style.height = `${high}px`;
      }
    }
    const across = Math.max(...panels.map((panel) => panel.points.width)) + 2 * margin;
    for (const panel of panels) panel.image = new ImageData(across, panel.points.height + 2 * margin);
    for (const mark of stamps.flat()) mark.from = Int32Array.from(mark.pixels, ([dx, dy]) => 4 * (dy * across + dx));
    ask(true);
  }

  // ---------------------------------------------------------------- what a visitor does
  function arrange() { // what is shown, and what of it stands out
    const on = (group, k) => !kept.hidden.has(`${group} ${view[group][k].name}`);
    shown = order.filter((i) => on("sets", view.of_set[i]) && on("classes", view.of_class[i]));
    const out = chosen && new Set(chosen);
    [lit, dim] = out ? [shown.filter((i) => out.has(i)), shown.filter((i) => !out.has(i))] : [shown, []];
    ask(true);
  }
  function choose(texts, how) { // null: none is chosen
    chosen = texts;
    arrange();
    said.textContent = texts ? `${texts.length} of ${N} texts ${how}${texts.length > LISTED ? `; the first ${LISTED}:` : ""}` : "Point at a text to see where the other panel has it. Click it to open it in the attention maps.";
    list.replaceChildren(...(texts || []).slice(0, LISTED).map((i) => {
      const open = button("text", () => tell("mbtsad-point", i), view.texts[i]), item = make("li", "", make("span", "", drawing(view.sets[view.of_set[i]].color, view.classes[view.of_class[i]].shape)), open, button("tool", () => tell("mbtsad-lab", i), "To the trigger lab"));
      open.title = "Open in the attention maps";
      item.onpointerenter = item.onfocus = open.onfocus = () => point(i);
      item.onpointerleave = open.onblur = () => point(null);
      return item;
    }));
  }
  function find() {
    const words = search.value.trim().toLowerCase();
    choose(words ? order.filter((i) => view.texts[i].toLowerCase().includes(words)).sort((a, b) => a - b) : null, `hold “${search.value.trim()}”`);
  }
  function point(i, panel) {
    pointed = i;
    tip.hidden = i === null || !panel;
    if (!tip.hidden) {
      const [x, y] = place(panel, i), box = root.getBoundingClientRect(), from = panel.plane.getBoundingClientRect();
      const by = box.width / root.offsetWidth || 1; // of large type
      tip.replaceChildren(view.texts[i], make("span", "muted", `${view.sets[view.of_set[i]].name}, ${view.classes[view.of_class[i]].name}`));
      tip.style.left = `${Math.max(0, Math.min((from.left - box.left) / by + x + 14, root.offsetWidth - tip.offsetWidth))}px`;
      tip.style.top = `${(from.top - box.top) / by + y + 14}px`;
    }
    ask(false);
  }
  function lassoed(on) {
    lassoing = on;
    lasso.setAttribute("aria-pressed", String(on));
  }
  function zoom(by, x = 0.5, y = 0.5) { // about a place of the panel, in shares of it
    const next = Math.min(64, Math.max(0.5, look.zoom * by));
    look.x += (x - 0.5) * (1 / look.zoom - 1 / next);
    look.y -= (y - 0.5) * (1 / look.zoom - 1 / next);
    look.zoom = next;
    ask(true);
  }
  function whole() {
    Object.assign(look, {x: 0.5, y: 0.5, zoom: 1});
    search.value = kept.asked = "";
    choose(null);
  }
  function at(t) {
    share = t;
    slider.value = 100 * t;
    panels[1].caption.lastChild.textContent = t === 1 ? view.names[1] : t === 0 ? `${view.names[0]}: before` : `${Math.round(100 * t)} % of the way from ${view.names[0]} to ${view.names[1]}`;
    ask(true);
  }
  function stop() {
    cancelAnimationFrame(playing);
    playing = 0;
    play.textContent = "▶ Play";
  }
  function animate() {
    if (playing) return stop();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return at(share === 1 ? 0 : 1);
    let began = null;
    const step = (now) => {
      began ??= now;
      const t = Math.min(1, (now - began) / 3000);
      at(t * t * (3 - 2 * t)); // slow at both ends
      playing = t < 1 ? requestAnimationFrame(step) : 0;
      if (!playing) stop();
    };
    play.textContent = "■ Stop";
    playing = requestAnimationFrame(step);
  }
  function save() {
    const canvas = make("canvas"), context = canvas.getContext("2d"), style = getComputedStyle(root), gap = 24 * ratio;
    canvas.width = panels.reduce((sum, panel) => sum + panel.points.width, 0);
    canvas.height = high * ratio + gap;
    context.fillStyle = style.getPropertyValue("--ground");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = style.getPropertyValue("--ink");
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    panels.forEach((panel, p) => {
      context.fillText(panel.caption.textContent, p * panel.points.width + EDGE, 16 * ratio);
      context.drawImage(panel.points, p * panel.points.width, gap);
    });
    const link = make("a");
    link.download = "projection.png";
    link.href = canvas.toDataURL();
    link.click();
  }
  function listen(panel) {
    const {over} = panel, spot = (event) => [event.offsetX, event.offsetY];
    over.onpointerdown = (event) => {
      if (event.button) return;
      over.setPointerCapture(event.pointerId);
      drag = {panel, at: spot(event), far: 0, path: lassoing || event.shiftKey ? [spot(event)] : null};
    };
    over.onpointermove = (event) => {
      const [x, y] = spot(event);
      if (!drag) return point(nearest(panel, x, y), panel);
      const dx = x - drag.at[0], dy = y - drag.at[1];
      drag.at = [x, y];
      drag.far += Math.abs(dx) + Math.abs(dy);
      if (drag.path) drag.path.push([x, y]);
      else {
        look.x -= dx / (panel.width - 2 * EDGE) / look.zoom;
        look.y += dy / (high - 2 * EDGE) / look.zoom;
      }
      point(null);
      ask(!drag.path);
    };
    over.onpointerup = (event) => {
      const done = drag;
      drag = null;
      if (!done) return;
      if (done.far < 4) {
        const i = nearest(panel, ...spot(event));
        if (i !== null) tell("mbtsad-point", i);
      } else if (done.path) {
        lassoed(false);
        choose(within(panel, done.path).sort((a, b) => a - b), "lie in the lasso");
      }
      ask(false);
    };
    over.onpointercancel = () => { drag = null; };
    over.onpointerleave = () => { if (!drag) point(null); };
    over.addEventListener("wheel", (event) => { // the page scrolls, unless one has taken hold of the picture
      if (!event.ctrlKey && document.activeElement !== over) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), event.offsetX / panel.width, event.offsetY / high);
    }, {passive: false});
    over.onkeydown = (event) => {
      const to = {ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0]}[event.key];
      if (event.key === "Enter" && pointed !== null) tell("mbtsad-point", pointed);
      if (!to) return;
      event.preventDefault();
      const from = pointed === null ? [panel.width / 2, high / 2] : place(panel, pointed);
      const next = nearest(panel, ...from, Infinity, (dx, dy) => dx * to[0] + dy * to[1] > Math.abs(dx * to[1] + dy * to[0]));
      if (next !== null) point(next, panel);
    };
    over.onblur = () => point(null);
  }

  element.projectionResize?.disconnect();
  element.projectionTheme?.disconnect();
  element.replaceChildren(root);
  lassoed(false);
  find();
  fit();
  let drawn = root.clientWidth; // drawing changes the height: only a new width asks for another drawing
  element.projectionResize = new ResizeObserver(() => {
    if (root.clientWidth === drawn) return;
    drawn = root.clientWidth;
    fit();
  });
  element.projectionResize.observe(root);
  element.projectionTheme = new MutationObserver(() => ask(true)); // light or dark
  element.projectionTheme.observe(document.body, {attributeFilter: ["class"]});
}
