// Draws an AttentionView (views/attention.py) into `element`. No library; every text is set as text, never as HTML.
function drawAttention(element, view) {
  const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];
  const SIGNED = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [255, 255, 255], [253, 219, 199], [239, 138, 98], [178, 24, 43]];
  const T = view.tokens.length;
  const marked = new Set(view.marked);

  function color(stops, share) { // share in [0, 1]
    const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
    return stops[i].map((c, k) => Math.round(c + (stops[i + 1][k] - c) * (at - i)));
  }
  const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, share, k) => sum + share * (rgb[k] <= 10 ? rgb[k] / 3295 : ((rgb[k] / 255 + 0.055) / 1.055) ** 2.4), 0); // of WCAG
  const css = (rgb) => `rgb(${rgb.join(",")})`;
  const blend = (stops) => `linear-gradient(to right, ${stops.map(css).join(",")})`;

  function values(map) { // Float32Array of T * T
    const out = new Float32Array(T * T);
    const value = Float32Array.from({length: map.levels + 1}, (_, q) => {
      const u = map.signed ? 2 * q / map.levels - 1 : q / map.levels;
      return map.high * u * Math.abs(u);
    });
    if (map.bits === 6) {
      const letters = new Uint8Array(128);
      [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].forEach((c, i) => { letters[c.charCodeAt(0)] = i; });
      for (let i = 0; i < out.length; i++) out[i] = value[letters[map.data.charCodeAt(i)]];
    } else {
      const bytes = atob(map.data);
      for (let i = 0; i < out.length; i++) out[i] = value[bytes.charCodeAt(i)];
    }
    return out;
  }

  function make(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }
  const number = (x) => (Math.abs(x) >= 0.0005 || x === 0 ? x.toFixed(3) : x.toExponential(1));
  const signed = (x) => (x > 0 ? "+" : "") + number(x);
  const tell = (name, detail) => element.dispatchEvent(new CustomEvent(name, {bubbles: true, detail}));

  // Colors: by the square root of the value, which shows the weak attention that most of a map is made of, or by the value.
  const root_scale = element.attentionRoot ?? true;
  const bend = (share) => (root_scale ? Math.sign(share) * Math.sqrt(Math.abs(share)) : share); // share of the scale's end, -1 ... 1

  // The maps: the last panel may come as the first plus the difference.
  const difference = view.difference && values(view.difference);
  const first = values(view.panels[0].map);
  const high = view.panels[0].map.high;
  const panels = view.panels.map((panel, i) => ({
    ...panel, stops: VIRIDIS, low: 0, high, show: number,
    values: i === 0 ? first : panel.map ? values(panel.map) : first.map((v, k) => Math.max(0, v + difference[k])),
  }));
  if (difference) {
    const reach = view.difference.high;
    panels.push({name: view.difference_name, color: "var(--muted)", answer: "", stops: SIGNED, low: -reach, high: reach, show: signed, values: difference});
  }

  const root = make("section", "mbtsad attention");
  root.setAttribute("aria-label", `Attention maps of ${view.tokens.length} tokens${view.marked?.length ? ", with the trigger" : ""}`);
  root.style.setProperty("--panels", panels.length);

  // The overview: layers x heads, each cell a button.
  if (view.overview) {
    const top = Math.max(...view.overview.values.flat(), 1e-9);
    root.append(make("p", "caption", `${view.overview.name}, at most ${(100 * top).toFixed(1)} %. Choose a head, or Σ: the sum over heads that the distillation matches.`));
    const box = make("div", "grid-box"), grid = make("div", "grid");
    grid.style.gridTemplateColumns = `auto repeat(${view.heads + 1}, auto)`;
    grid.append(make("span", "name", "head"));
    for (let h = 0; h < view.heads; h++) grid.append(make("span", "of-head", h + 1));
    grid.append(make("span", "of-head", "sum"));
    view.overview.values.forEach((row, layer) => {
      grid.append(make("span", "name", `layer ${layer + 1}`));
      [...row, null].forEach((share, i) => {
        const head = share === null ? null : i;
        const cell = make("button", share === null ? "sum" : "", share === null ? "Σ" : Math.round(100 * share));
        cell.type = "button";
        if (share !== null) {
          const rgb = color(VIRIDIS, share / top);
          cell.style.background = css(rgb);
          cell.style.color = luminance(rgb) > 0.179 ? "#000" : "#fff"; // whichever stands out more
        }
        cell.title = share === null ? `layer ${layer + 1}, sum over heads` : `layer ${layer + 1}, head ${i + 1}: ${(100 * share).toFixed(1)} %`;
        cell.setAttribute("aria-label", cell.title);
        cell.setAttribute("aria-pressed", String(layer === view.layer && head === view.head));
        cell.tabIndex = layer === view.layer && head === view.head ? 0 : -1; // one stop for Tab; the arrow keys move among the cells
        cell.onclick = () => tell("mbtsad-head", {layer, head});
        grid.append(cell);
      });
    });
    grid.onkeydown = (event) => {
      const by = {ArrowUp: -view.heads - 1, ArrowDown: view.heads + 1, ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!by) return;
      event.preventDefault();
      const cells = [...grid.querySelectorAll("button")];
      cells[cells.indexOf(document.activeElement) + by]?.focus();
    };
    box.append(grid);
    root.append(box);
  }

  const head = view.head === null ? "sum over heads, eq. (3)" : `head ${view.head + 1}`;
  const where = make("div", "where", `Layer ${view.layer + 1}, ${head}`);
  const toggle = make("button", "", `colors: ${root_scale ? "square root" : "linear"}`);
  toggle.type = "button";
  toggle.title = "Color by the value or by its square root, which shows weak attention; the figures stay the same";
  toggle.onclick = () => {
    element.attentionRoot = !root_scale;
    drawAttention(element, view);
  };
  const away = make("button", "", view.head === null ? "the head that moved most" : "sum over heads");
  away.type = "button";
  away.onclick = () => {
    const shares = view.overview?.values.flat() || [0], most = shares.indexOf(Math.max(...shares));
    tell("mbtsad-head", view.head === null ? {layer: Math.floor(most / view.heads), head: most % view.heads} : {layer: view.layer, head: null});
  };
  where.append(away, toggle);
  root.append(where);

  // The sentence: a token under the pointer or the focus lights up its row and column, in the other view of the text too.
  const sentence = make("div", "sentence");
  sentence.setAttribute("role", "group");
  sentence.setAttribute("aria-label", "Tokens; the arrow keys move among them");
  view.tokens.forEach((token, i) => {
    const button = make("button", marked.has(i) ? "marked" : "", token);
    button.type = "button";
    button.tabIndex = i ? -1 : 0;
    button.onpointerenter = button.onfocus = () => light(i, true);
    button.onpointerleave = button.onblur = () => light(null, true);
    sentence.append(button);
  });
  sentence.onkeydown = (event) => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by) return;
    event.preventDefault();
    (by > 0 ? document.activeElement.nextElementSibling : document.activeElement.previousElementSibling)?.focus();
  };
  root.append(sentence);
  const read = make("div", "read");
  read.setAttribute("role", "status");
  root.append(read);
  const row = make("div", "panels");
  root.append(row);

  // One picture of T x T pixels a panel, made once; the canvas scales it.
  function picture(panel) {
    const image = document.createElement("canvas");
    image.width = image.height = T;
    const context = image.getContext("2d"), pixels = context.createImageData(T, T);
    const shades = Array.from({length: 513}, (_, i) => color(panel.stops, i / 512)); // odd: zero is the middle one, white
    for (let i = 0; i < T * T; i++) {
      const bent = bend(panel.values[i] / panel.high), share = panel.low < 0 ? (bent + 1) / 2 : bent;
      const rgb = shades[Math.min(512, Math.max(0, Math.round(512 * share)))];
      pixels.data.set([rgb[0], rgb[1], rgb[2], 255], 4 * i);
    }
    context.putImageData(pixels, 0, 0);
    return image;
  }

  let longest = 0, letter = 0; // pixels of the longest token, at this size of letters
  let lit = null; // the token whose row and column stand out
  const text = view.tokens.join("\n");
  let cell = null, chosen = element.attentionKept?.text === text ? element.attentionKept.chosen : null; // [query, key]: under the pointer, and clicked
  for (const panel of panels) {
    const figure = make("figure"), caption = make("figcaption"), name = make("b", "", panel.name);
    name.style.setProperty("--of", panel.color);
    caption.append(name, make("span", "muted", panel.answer));
    panel.canvas = make("canvas");
    panel.canvas.tabIndex = 0;
    panel.canvas.setAttribute("role", "img");
    let best = 0;
    for (let i = 1; i < T * T; i++) if (Math.abs(panel.values[i]) > Math.abs(panel.values[best])) best = i;
    panel.canvas.setAttribute("aria-label", `${panel.name}: ${T} by ${T} map of attention; largest ${panel.show(panel.values[best])} from ${view.tokens[Math.floor(best / T)]} to ${view.tokens[best % T]}. Arrow keys move over it.`);
    const scale = make("div", "scale"), half = (panel.stops.length - 1) / 2, middle = color(panel.stops, 0.5);
    const bars = [[...panel.stops.slice(0, Math.ceil(half)), middle], [middle, ...panel.stops.slice(Math.floor(half) + 1)]].map((stops) => {
      const bar = make("i");
      bar.style.background = blend(stops);
      return bar;
    });
    const between = panel.low < 0 ? 0 : panel.high * (root_scale ? 0.25 : 0.5);
    scale.append(make("span", "", panel.show(panel.low)), bars[0], make("span", "", panel.show(between)), bars[1], make("span", "", panel.show(panel.high)));
    figure.append(caption, panel.canvas, scale);
    row.append(figure);
    panel.image = picture(panel);
    panel.canvas.onpointermove = (event) => point(at(panel, event));
    panel.canvas.onpointerleave = () => point(chosen);
    panel.canvas.onclick = (event) => choose(at(panel, event));
    panel.canvas.onkeydown = (event) => {
      const by = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (!by) return;
      event.preventDefault();
      choose((chosen || [0, -1]).map((v, i) => Math.min(T - 1, Math.max(0, v + by[i]))));
    };
  }

  function at(panel, event) {
    const box = panel.canvas.getBoundingClientRect(), {left, top, side} = panel.place, zoom = box.width / panel.canvas.offsetWidth || 1; // large type
    const key = Math.floor(((event.clientX - box.left) / zoom - left) / side * T), query = Math.floor(((event.clientY - box.top) / zoom - top) / side * T);
    return key >= 0 && key < T && query >= 0 && query < T ? [query, key] : null;
  }
  function choose(found) {
    chosen = found;
    element.attentionKept = {text, chosen};
    point(found);
    if (found) tell("mbtsad-cell", {query: found[0], key: found[1]});
  }
  const looks = (values, key) => { let sum = 0; for (let q = 0; q < T; q++) sum += values[q * T + key] / T; return sum; };
  function point(found, anew) {
    if (!anew && String(found) === String(cell) && read.childNodes.length) return;
    cell = found;
    read.replaceChildren();
    if (lit !== null) {
      read.append(make("code", "", view.tokens[lit]), ` (${lit + 1}) is looked at, on average over all tokens: `, panels.map((p) => `${p.name} ${p.show(looks(p.values, lit))}`).join(" · "));
    } else if (found) {
      const [q, k] = found;
      read.append(make("code", "", view.tokens[q]), ` (${q + 1}) looks at `, make("code", "", view.tokens[k]), ` (${k + 1}): `,
        panels.map((p) => `${p.name} ${p.show(p.values[q * T + k])}`).join(" · "));
    } else {
      read.append(make("span", "muted", "Rows look at columns. Point at a cell to read it, click it to hold it" + (marked.size ? "; the trigger's rows and columns are framed." : ".")));
    }
    panels.forEach(draw);
  }

  const place = (i) => view.tokens.slice(0, i).filter((_, k) => !marked.has(k)).length; // among the tokens that both views have
  function light(i, told) {
    lit = i;
    [...sentence.children].forEach((button, k) => button.classList.toggle("lit", k === i));
    point(chosen, true);
    if (told) document.dispatchEvent(new CustomEvent("mbtsad-token", {detail: {by: element, token: view.tokens[i], place: i === null || marked.has(i) ? null : place(i)}}));
  }
  document.removeEventListener("mbtsad-token", element.attentionLit);
  element.attentionLit = ({detail}) => {
    if (detail.by === element) return;
    const same = detail.place === null ? -1 : view.tokens.findIndex((token, i) => token === detail.token && !marked.has(i) && place(i) === detail.place);
    light(same < 0 ? null : same);
  };
  document.addEventListener("mbtsad-token", element.attentionLit);

  function draw(panel) {
    const width = panel.canvas.clientWidth;
    if (!width) return;
    const ratio = window.devicePixelRatio || 1, style = getComputedStyle(root), ink = style.getPropertyValue("--ink").trim(), muted = style.getPropertyValue("--muted").trim();
    const context = panel.canvas.getContext("2d"), letters = Math.round(Math.min(16, Math.max(11, 0.5 * width / T))), font = `${letters}px system-ui, sans-serif`;
    context.font = font;
    if (letters !== letter) [letter, longest] = [letters, Math.max(...view.tokens.map((token) => context.measureText(token).width))];
    const left = Math.ceil(Math.min(longest, width * 0.26)) + 8, top = Math.ceil(Math.min(longest, 90)) + 8, side = width - left - 1;
    const height = top + side + 1;
    panel.place = {left, top, side};
    panel.canvas.style.height = `${height}px`;
    panel.canvas.width = Math.round(width * ratio);
    panel.canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = T > side * ratio; // more tokens than pixels: average, do not drop
    context.imageSmoothingQuality = "high";
    context.drawImage(panel.image, left, top, side, side);
    const size = side / T;
    context.strokeStyle = muted;
    context.lineWidth = 1;
    context.strokeRect(left - 0.5, top - 0.5, side + 1, side + 1);
    if (lit !== null) { // all but its row and column step back
      context.globalAlpha = 0.65;
      context.fillStyle = style.getPropertyValue("--ground").trim();
      const from = lit * size, to = from + size;
      for (const [x, w] of [[0, from], [to, side - to]]) for (const [y, h] of [[0, from], [to, side - to]]) context.fillRect(left + x, top + y, w, h);
      context.globalAlpha = 1;
    }

    // Labels: every n-th where they would touch, but always the trigger's and the pointed-at ones.
    const every = Math.max(1, Math.ceil((letters + 1) / size));
    function labels(pointed, write) {
      const first = [...new Set([...(pointed === undefined ? [] : [pointed]), ...(lit === null ? [] : [lit]), ...marked])], taken = [];
      for (const i of [...first, ...view.tokens.keys()]) {
        if (!first.includes(i) && i % every) continue;
        if (taken.some((j) => Math.abs(i - j) * size < letters + 0.5)) continue;
        taken.push(i);
        const strong = i === pointed || i === lit || marked.has(i);
        context.font = strong ? `700 ${font}` : font;
        context.fillStyle = strong ? ink : muted;
        write(i, fitted(view.tokens[i], left - 8));
      }
    }
    function fitted(token, room) {
      if (context.measureText(token).width <= room) return token;
      const letters = [...new Intl.Segmenter().segment(token)].map((part) => part.segment); // what a person reads as one character
      while (letters.length > 1 && context.measureText(letters.join("") + "…").width > room) letters.pop();
      return letters.join("") + "…";
    }
    context.textBaseline = "middle";
    context.textAlign = "right";
    labels(cell ? cell[0] : undefined, (i, token) => context.fillText(token, left - 5, top + (i + 0.5) * size));
    context.textAlign = "left";
    labels(cell ? cell[1] : undefined, (i, token) => {
      context.save();
      context.translate(left + (i + 0.5) * size, top - 5);
      context.rotate(-Math.PI / 2);
      context.fillText(token, 0, 0);
      context.restore();
    });

    // The trigger's rows and columns: a dark frame in a light one, seen on any color. Neighbours share a frame.
    const runs = [];
    for (const i of [...marked].sort((a, b) => a - b)) runs.length && runs.at(-1)[1] === i ? runs.at(-1)[1]++ : runs.push([i, i + 1]);
    for (const [from, to] of runs) {
      const start = from * size, extent = Math.max((to - from) * size, 2);
      for (const [shade, line] of [["#fff", 3], ["#000", 1]]) {
        context.strokeStyle = shade;
        context.lineWidth = line;
        context.strokeRect(left, top + start, side, extent);
        context.strokeRect(left + start, top, extent, side);
      }
    }
    if (cell) {
      const [q, k] = cell, extent = Math.max(size, 3);
      for (const [shade, line] of [["#fff", 4], ["#000", 1.5]]) {
        context.strokeStyle = shade;
        context.lineWidth = line;
        context.strokeRect(left + k * size, top + q * size, extent, extent);
      }
    }
  }

  if (element.attentionResize) element.attentionResize.disconnect();
  const STOPS = "button, canvas"; // what had the focus has it again, though an answer may come late and draw anew under the keys
  const focused = document.activeElement, group = element.contains(focused) && [".grid", ".where", ".sentence", ".panels"].find((name) => focused.closest(name));
  const place_in_group = group ? [...focused.closest(group).querySelectorAll(STOPS)].indexOf(focused) : -1;
  element.replaceChildren(root);
  if (group) root.querySelector(group)?.querySelectorAll(STOPS)[place_in_group]?.focus({preventScroll: true});
  point(chosen);
  let drawn = root.clientWidth; // drawing sets the height: only a new width asks for another drawing
  element.attentionResize = new ResizeObserver(() => {
    if (root.clientWidth === drawn) return;
    drawn = root.clientWidth;
    panels.forEach(draw);
  });
  element.attentionResize.observe(root);
}
