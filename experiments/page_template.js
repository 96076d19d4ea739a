"use strict";
const M = JSON.parse(document.getElementById("model").textContent);
const { symbols, block_size: T, n_embd: E } = M, V = symbols.length, MOST = 100, N = 20, TRIES = 5;
const codes = new Map(symbols.map((symbol, code) => [symbol, code]));

// ---- a network: y = b2 + W2 tanh(b1 + W1 x) (+ Wd x), x the embeddings of the last characters

const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

function unpack(member) {
  const raw = bytes(member.integers), scales = new DataView(bytes(member.scales).buffer), weights = { ...member };
  let at = 0, row = 0;
  for (const { name, rows, columns, bits } of member.tensors) {
    const w = weights[name] = new Float32Array(rows * columns), zero = 2 ** (bits - 1);
    let held = 0, n = 0;  // bits that were read but not used yet, and their number, at most 31
    for (let i = 0; i < w.length; i++) {
      if (i % columns === 0) row++;
      while (n < bits) { held = (held << 8 | raw[at++]) >>> 0; n += 8; }
      w[i] = ((held >>> (n - bits)) - zero) * scales.getFloat32(4 * (row - 1), true);
      n -= bits; held &= 2 ** n - 1;
    }
  }
  return weights;
}
const networks = M.members.map(unpack);

function encode(prefix) {
  return Array.from(prefix, c => {
    const code = codes.get(c);
    if (code === undefined || code === 0) throw new RangeError(c);
    return code;
  });
}

function addProduct(out, x, W) {  // out += x W
  for (let i = 0, n = out.length; i < x.length; i++)
    for (let j = 0, k = i * n; j < n; j++) out[j] += x[i] * W[k + j];
}

function logitsOf({ block_size: T, n_embd: E, C, W1, b1, W2, b2, Wd }, word) {
  const x = new Float64Array(T * E);
  for (let t = 0; t < T; t++) {
    const code = word[word.length - T + t] ?? 0;
    for (let e = 0; e < E; e++) x[t * E + e] = C[code * E + e];
  }
  const hidden = Float64Array.from(b1), out = Float64Array.from(b2);
  addProduct(hidden, x, W1);
  addProduct(out, hidden.map(Math.tanh), W2);
  if (Wd) addProduct(out, x, Wd);
  return out;
}

function softmax(y, temperature = 1) {
  const top = y.reduce((a, b) => Math.max(a, b)), p = y.map(v => Math.exp((v - top) / temperature));
  const sum = p.reduce((a, b) => a + b);
  return p.map(v => v / sum);
}

// ---- counts: modified interpolated Kneser-Ney smoothing (Chen & Goodman 1999), as makemore/kneser_ney.py

function discounts(counts) {  // of counts 0, 1, 2 and 3 or more
  const n = [0, 0, 0, 0, 0];
  for (const c of counts) if (c < 5) n[c]++;
  const share = n[1] / (n[1] + 2 * n[2]);
  const found = [0, 1 - 2 * share * n[2] / n[1], 2 - 3 * share * n[3] / n[2], 3 - 4 * share * n[4] / n[3]];
  return Math.min(...n.slice(1)) > 0 && Math.min(...found.slice(1)) > 0 ? found : [0, 0.5, 1, 1.5];
}

function countLevels({ context: K, ngrams, counts }) {  // for each length: a map from context to its row
  const codes = new Uint16Array(bytes(ngrams).buffer), numbers = new Uint32Array(bytes(counts).buffer);
  return Array.from({ length: K + 1 }, (_, length) => {
    const rows = new Map(), seen = new Set();
    numbers.forEach((n, i) => {
      const ngram = codes.subarray(i * (K + 1), (i + 1) * (K + 1)), from = K - length;
      if (length > 1 && ngram[from + 1] === 0) return;  // the context reaches beyond the start of the name
      let c = n;
      if (length < K && !(length && ngram[from] === 0)) {  // count the different symbols before
        const longer = ngram.subarray(from - 1).join();
        if (seen.has(longer)) return;
        seen.add(longer);
        c = 1;
      }
      const key = ngram.subarray(from, K).join(), row = rows.get(key) ?? rows.set(key, new Map()).get(key);
      row.set(ngram[K], (row.get(ngram[K]) ?? 0) + c);
    });
    const D = discounts([...rows.values()].flatMap(row => [...row.values()]));
    for (const [key, row] of rows) {
      let total = 0, rest = 0;
      for (const c of row.values()) { total += c; rest += D[Math.min(c, 3)]; }
      rows.set(key, { rest: rest / total, mass: [...row].map(([code, c]) => [code, (c - D[Math.min(c, 3)]) / total]) });
    }
    return rows;
  });
}
const levels = M.counts ? countLevels(M.counts) : [];

function countedProbabilities(word) {
  let p = new Float64Array(V).fill(1 / V);
  const padded = [...Array(levels.length).fill(0), ...word];
  levels.forEach((rows, length) => {
    const row = rows.get(padded.slice(padded.length - length).join());
    if (!row) return;
    p = p.map(v => v * row.rest);
    for (const [code, mass] of row.mass) p[code] += mass;
  });
  return p;
}

function logits(word) {  // of the next character after these codes
  if (networks.length === 1 && !M.counts) return logitsOf(networks[0], word);
  const p = new Float64Array(V), rest = M.counts ? 1 - M.counts.weight : 1;
  for (const network of networks)
    softmax(logitsOf(network, word)).forEach((v, code) => { p[code] += rest * network.weight * v; });
  if (M.counts) countedProbabilities(word).forEach((v, code) => { p[code] += M.counts.weight * v; });
  return p.map(Math.log);
}

function random(seed, stream) {  // mulberry32; one stream per name, so a name does not depend on earlier names
  let a = Math.imul(seed, 0x9e3779b1) + Math.imul(stream + 1, 0x85ebca6b) | 0;
  return () => {
    a = a + 0x6d2b79f5 | 0;
    let t = Math.imul(a ^ a >>> 15, 1 | a);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
}

function sampleWord(prefix, temperature, draw) {
  const word = [];
  let nats = 0;  // of the whole name at temperature 1, whatever temperature it was sampled at
  while (true) {
    const y = logits(word), given = prefix[word.length];
    let code = given ?? 0;
    if (given === undefined) {
      const p = softmax(y, temperature);
      for (let left = draw(); code < V - 1 && (left -= p[code]) >= 0;) code++;
    }
    nats -= Math.log(softmax(y)[code]);
    if (code !== 0) word.push(code);
    if (code === 0 || word.length >= Math.max(MOST, prefix.length))
      return { name: word.map(code => symbols[code]).join(""), nats: nats / (word.length + 1) };
  }
}

function sampleNames(prefix, temperature, seed, n) {  // n different names, or fewer if few are likely
  const names = new Map();
  for (let i = 0; i < TRIES * n && names.size < n; i++) {
    const word = sampleWord(prefix, temperature, random(seed, i));
    if (word.name && !names.has(word.name)) names.set(word.name, word);
  }
  return [...names.values()];
}

window.makemore = {
  symbols,
  probabilities: (prefix, temperature = 1) => Array.from(softmax(logits(encode(prefix)), temperature)),
  sample: ({ prefix = "", temperature = 1, seed = 1, index = 0 } = {}) =>
    sampleWord(encode(prefix), temperature, random(seed, index)),
  generate: ({ prefix = "", temperature = 1, seed = 1, n = N } = {}) =>
    sampleNames(encode(prefix), temperature, seed, n),
};

// ---- the page

const $ = id => document.getElementById(id), percent = p => `${(100 * p).toFixed(1)} %`;
const label = c => c === " " ? "␣" : /\p{M}/u.test(c) ? "◌" + c : c;
const big = V > 40;  // too many symbols to give each a bar

function make(tag, parent, text = "", attributes = {}, space = null) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  element.textContent = text;
  return parent.appendChild(element);
}

function drawBars(word) {
  const p = softmax(logits(word), +$("temperature").value), top = p.reduce((a, b) => Math.max(a, b));
  let order = Array.from(p.keys());
  if (big) order = order.sort((a, b) => p[b] - p[a]).slice(0, 30);
  const focused = $("bars").contains(document.activeElement);
  while ($("bars").children.length < order.length) {
    const button = make("button", $("bars"), "", { type: "button" });
    make("bdi", button); make("i", make("span", button)); make("span", button, "", { class: "p" });
    button.onclick = () => { $("prefix").value += symbols[button.value]; update(); };
  }
  order.forEach((code, k) => {
    const button = $("bars").children[k], [symbol, bar, number] = button.children, end = code === 0;
    button.value = code; button.disabled = end;
    button.title = end ? "the name ends here" : `add ${symbols[code]}`;
    button.setAttribute("aria-label", `${end ? "end of the name" : symbols[code]}, ${percent(p[code])}`);
    symbol.textContent = end ? "end" : label(symbols[code]);
    bar.firstChild.style.width = `${100 * p[code] / top}%`;
    number.textContent = percent(p[code]);
  });
  $("after").textContent = word.length ? `after ${word.map(code => symbols[code]).join("")}` : "at the start";
  if (focused && document.activeElement.disabled) $("prefix").focus();
  const rest = 1 - order.reduce((sum, code) => sum + p[code], 0);
  $("rest").textContent = (big ? `The remaining ${V - 30} characters have ${percent(Math.max(0, rest))} together. ` : "")
    + "At the temperature set above. Click a letter to add it.";
}

function drawNames(word, prefix) {
  const seed = $("seed").valueAsNumber, names = sampleNames(word, +$("temperature").value, seed, N);
  $("names").replaceChildren();
  for (const { name, nats } of names) {
    const row = make("li", $("names")), text = make("bdi", row);
    make("b", text, prefix); text.append(name.slice(prefix.length));
    make("small", row, nats.toFixed(2));
  }
  const one = names.length === 1, many = one ? "1 name" : `${names.length} different names`;
  const begins = prefix && ` that begin${one ? "s" : ""} with ${prefix}`;
  const hint = names.length < N ? " At this temperature the model finds few more." : "";
  say(`${many}${begins}, seed ${seed}.${hint}`);
}

function spread(places, gap) {  // move overlapping letters apart, just far enough to be readable
  for (let round = 0; round < 40; round++)
    for (const a of places) for (const b of places) {
      const dx = b[0] - a[0] || 1e-6, dy = b[1] - a[1], far = Math.hypot(dx, dy), push = (gap - far) / far / 4;
      if (a === b || push <= 0) continue;
      a[0] -= dx * push; a[1] -= dy * push; b[0] += dx * push; b[1] += dy * push;
    }
}

function drawMap() {
  const svg = "http://www.w3.org/2000/svg", xs = M.places.map(p => p[0]), ys = M.places.map(p => p[1]);
  const bounds = v => v.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  const [x0, x1] = bounds(xs), [y0, y1] = bounds(ys), W = 400, edge = 22;
  const scale = (W - 2 * edge) / Math.max(x1 - x0, y1 - y0, 1e-9);  // the same on both axes, so distances are correct
  const width = Math.max(2 * edge + scale * (x1 - x0), 0.75 * W);
  const height = Math.max(2 * edge + scale * (y1 - y0), 0.5 * W);
  $("map").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("map").setAttribute("aria-label", "Map of the letters by their embeddings; letters that are close are alike.");
  const size = V <= 64 ? 17 : V <= 300 ? 11 : 7;
  const places = M.places.map(([x, y]) =>
    [width / 2 + scale * (x - (x0 + x1) / 2), height / 2 - scale * (y - (y0 + y1) / 2)]);
  if (V <= 64) spread(places, size);
  places.forEach((at, code) => {
    make("circle", $("map"), "", { cx: at[0], cy: at[1], r: 0.65 * size, "stroke-width": 1.5 }, svg);
    make("text", $("map"), label(symbols[code]), { x: at[0], y: at[1], "font-size": size }, svg);
  });
  const share = M.shares[0] + M.shares[1];
  $("legend").textContent = `The two directions in which the ${E} features of the letters vary most explain `
    + `${percent(share)} of their variance. “${symbols[0]}” is the start and the end of a name. Rings mark the `
    + `${T === 1 ? "character" : T + " characters"} that the model sees now.`;
}

function markMap(word) {
  const seen = new Set(Array.from({ length: T }, (_, t) => word[word.length - T + t] ?? 0));
  [...$("map").children].forEach((element, i) => element.classList.toggle("seen", seen.has(i >> 1)));
}

function say(sentence, bad = false) {
  $("status").textContent = sentence;
  document.querySelector("main").classList.toggle("stale", bad);
  $("status").classList.toggle("bad", bad);
}

// Phones capitalise the first letter; use the small letter if the model knows only that.
const fold = text => Array.from(text, c => !codes.has(c) && codes.has(c.toLowerCase()) ? c.toLowerCase() : c).join("");

function update() {
  $("shown").textContent = (+$("temperature").value).toFixed(2);
  const prefix = fold($("prefix").value);
  let word;
  try { word = encode(prefix); } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    const known = V <= 100 ? ` It knows ${symbols.slice(1).join("")}.` : "";
    $("prefix").setAttribute("aria-invalid", "true");
    return say(`The model does not know “${error.message}”.${known}`, true);
  }
  $("prefix").removeAttribute("aria-invalid");
  drawBars(word); markMap(word);
  if (!$("seed").checkValidity()) return say("The seed must be a whole number from 0 to 4,294,967,295.", true);
  drawNames(word, prefix);
}

$("form").oninput = update;
$("form").onsubmit = event => {
  event.preventDefault();
  // Enter in the seed field uses that seed; elsewhere it takes the next seed.
  if (document.activeElement !== $("seed")) $("seed").value = ($("seed").valueAsNumber + 1) % 2 ** 32;
  update();
};
const loss = M.dev_loss === null ? "" : `; dev loss ${M.dev_loss.toFixed(4)} nats per character`;
const kind = networks.length > 1 ? `${networks.length} neural networks` : "a neural network";
const mixed = M.counts ? ", mixed with counts of letters," : "";
$("about").textContent = `Generated in this page by ${kind} of ${M.n_params.toLocaleString("en")} parameters${mixed} that `
  + `see${networks.length > 1 ? "" : "s"} the last ${T === 1 ? "character" : T + " characters"}${loss}. ${M.source}`;
drawMap();
update();
