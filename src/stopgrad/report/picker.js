// Pick an image and see its neighbours; without script the chosen examples stand on the page.
document.querySelectorAll(".explorer").forEach((root) => {
  "use strict";
  const data = JSON.parse(root.querySelector("script").textContent);
  const sheet = root.querySelector(".sheet");
  const list = root.querySelector(".thumbs"), tally = root.querySelector(".tally");
  const picked = root.querySelector(".picked"), text = picked.querySelector("p");
  const byClass = root.querySelector("[name=class]"), byKind = root.querySelector("[name=kind]");
  const figure = (root.closest(".part") ?? document).querySelector("figure.map");
  const dots = figure ? [...figure.querySelectorAll("[data-tip]")] : [];
  const tip = document.createElement("div");
  let shown = [], current = 0, lit = -1;

  const name = (index) => (index === null ? "" : data.names[index]);
  const isWrong = ([own, taken]) => own !== null && taken !== null && own !== taken;

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function paint(canvas, tile) {
    const { width, height } = data.tile, { cell, columns } = data;
    [canvas.width, canvas.height] = [width, height];
    canvas.classList.toggle("small", Math.max(width, height) < 64);
    const left = (tile % columns) * cell, top = Math.floor(tile / columns) * cell;
    canvas.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, width, height);
    return canvas;
  }

  function describe(index) {
    const [own, taken] = data.images[index];
    if (own === null && taken === null) return `image ${index + 1}`;
    if (own === null) return `image ${index + 1}, taken for ${name(taken)}`;
    if (taken === null) return name(own);
    return own === taken ? `${name(own)}, correct` : `${name(own)}, taken for ${name(taken)}`;
  }

  const options = data.images.map((image, index) => {
    const option = make("div", isWrong(image) ? "wrong" : "");
    option.setAttribute("role", "option");
    option.setAttribute("aria-label", describe(index));
    option.dataset.index = index;
    option.append(make("canvas"));
    option.firstChild.setAttribute("aria-hidden", "true");
    return option;
  });

  function verdict([own, taken, near]) {
    const parts = [];
    if (own !== null) parts.push(make("strong", "", name(own)));
    if (own !== null && own === taken) parts.push(make("span", "good", "✓ correct"));
    else if (taken !== null) {
      const text = `${own === null ? "" : "✗ "}taken for ${name(taken)}`;
      parts.push(make("span", own === null ? "" : "wrong", text));
    }
    const same = near.filter(([, label]) => label !== null && label === own).length;
    if (own !== null && near.some(([, label]) => label !== null)) {
      parts.push(make("span", "count", `${same} of ${near.length} neighbours of its class`));
    }
    return parts.length ? parts : [make("span", "", "no class")];
  }

  function neighbor([tile, label, similarity], own, rank) {
    const known = own !== null && label !== null;
    const item = make("li", known ? (own === label ? "agrees" : "differs") : "");
    const canvas = paint(make("canvas"), tile);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `neighbour ${rank}${label === null ? "" : `, ${name(label)}`}`);
    const title = make("span", "name");
    if (known && own !== label) title.append(make("span", "mark", "✗ "));
    title.append(name(label));
    item.append(canvas, title, make("span", "similarity", similarity.toFixed(3)));
    return item;
  }

  function pick(index, focus) {
    options[current].setAttribute("aria-selected", "false");
    options[current].tabIndex = -1;
    dots[current]?.classList.remove("ring");
    current = index;
    const image = data.images[index], option = options[index];
    option.setAttribute("aria-selected", "true");
    option.tabIndex = 0;
    dots[index]?.classList.add("ring");
    dots[index]?.parentNode.append(dots[index]);
    if (focus) option.focus();
    const canvas = paint(picked.querySelector(".query canvas"), index);
    canvas.setAttribute("aria-label", `picked: ${describe(index)}`);
    text.replaceChildren(...verdict(image));
    const near = image[2].map((one, place) => neighbor(one, image[0], place + 1));
    picked.querySelector("ol").replaceChildren(...near);
  }

  function filter() {
    const label = byClass?.value ?? "", kind = byKind?.value ?? "";
    const fits = (image) =>
      (label === "" || image[0] === Number(label)) &&
      (kind === "" || isWrong(image) === (kind === "wrong"));
    shown = data.images.flatMap((image, index) => (fits(image) ? [index] : []));
    list.replaceChildren(...shown.map((index) => options[index]));
    tally.textContent = shown.length
      ? `${shown.length} of ${data.images.length} images` : "no such image; choose another class";
    picked.hidden = shown.length === 0;
    dots.forEach((dot, index) => dot.classList.toggle("dim", !fits(data.images[index])));
    if (shown.length) pick(shown.includes(current) ? current : shown[0], false);
  }

  function columns() {
    const top = options[shown[0]].offsetTop;
    const next = shown.findIndex((index) => options[index].offsetTop > top);
    return next < 0 ? shown.length : next;
  }

  function key(event) {
    const place = shown.indexOf(current), last = shown.length - 1;
    const to = {
      ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last,
      ArrowUp: place - columns(), ArrowDown: place + columns(),
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to <= last) pick(shown[to], true);
  }

  function pickAnywhere(index) {
    if (!shown.includes(index)) {
      for (const select of [byClass, byKind]) if (select) select.value = "";
      filter();
    }
    pick(index, false);
    options[index].scrollIntoView({ block: "nearest" });
    picked.scrollIntoView({ block: "nearest" });
  }

  function point(event) {
    const { clientX: x, clientY: y } = event;
    let best = -1, least = 14; // px
    dots.forEach((dot, index) => {
      const box = dot.getBoundingClientRect();
      const far = Math.hypot(box.left + box.width / 2 - x, box.top + box.height / 2 - y);
      if (far < least && !dot.classList.contains("dim")) [best, least] = [index, far];
    });
    light(best);
  }

  function light(index) {
    if (index === lit) return;
    dots[lit]?.classList.remove("on");
    lit = index;
    tip.hidden = index < 0;
    if (index < 0) return;
    dots[index].classList.add("on");
    tip.replaceChildren(paint(make("canvas"), index), describe(index));
    const box = dots[index].getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(box.left + box.width / 2 - own.width / 2, innerWidth - own.width - 6);
    const above = box.top - own.height - 8;
    tip.style.left = `${Math.max(6, left)}px`;
    tip.style.top = `${above > 6 ? above : box.bottom + 8}px`;
  }

  function prepareMap() {
    tip.className = "tip map-tip";
    tip.hidden = true;
    document.body.append(tip);
    figure.querySelectorAll(".hint").forEach((hint) => { hint.hidden = false; });
    for (const dot of dots) {
      dot.classList.add("dot");
      dot.removeAttribute("data-tip"); // the page's own tip has no image
    }
    const svg = figure.querySelector("svg");
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", () => light(-1));
    svg.addEventListener("click", () => lit >= 0 && pickAnywhere(lit));
    document.addEventListener("scroll", () => light(-1), { passive: true });
    document.addEventListener("keydown", (event) => event.key === "Escape" && light(-1));
  }

  function start() {
    options.forEach((option, index) => {
      option.setAttribute("aria-selected", "false");
      option.tabIndex = -1;
      paint(option.firstChild, index);
    });
    root.hidden = false;
    root.nextElementSibling.classList.add("doubled"); // the chosen examples are among these
    list.addEventListener("keydown", key);
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) pick(Number(option.dataset.index), true);
    });
    byClass?.addEventListener("change", filter);
    byKind?.addEventListener("change", filter);
    if (dots.length) prepareMap();
    filter();
  }

  sheet.decode().then(start, () => {}); // a browser without WebP keeps the chosen examples
});
