"use strict";
// The value nearest to the pointer, for mouse and finger; without script the tables hold them all.
(() => {
  const REACH = 28; // px
  const tip = document.querySelector(".tip");
  let lit = null;

  function distance(mark, x, y) {
    const box = mark.getBoundingClientRect();
    const dx = Math.max(box.left - x, 0, x - box.right);
    const dy = Math.max(box.top - y, 0, y - box.bottom);
    return Math.hypot(dx, dy);
  }

  function nearest(svg, x, y) {
    let best = null, least = REACH;
    for (const mark of svg.querySelectorAll("[data-tip]")) {
      const far = distance(mark, x, y);
      if (far < least) [best, least] = [mark, far];
    }
    return best;
  }

  function show(mark) {
    if (mark === lit) return;
    lit?.classList.remove("on");
    lit = mark;
    tip.hidden = mark === null;
    if (mark === null) return;
    mark.classList.add("on");
    tip.textContent = mark.dataset.tip;
    const box = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(box.left + box.width / 2 - own.width / 2, innerWidth - own.width - 6);
    const above = box.top - own.height - 8;
    tip.style.left = `${Math.max(6, left)}px`;
    tip.style.top = `${above > 6 ? above : box.bottom + 8}px`;
  }

  function point(event) {
    const svg = event.target.closest?.("figure svg");
    show(svg ? nearest(svg, event.clientX, event.clientY) : null);
  }

  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  document.addEventListener("scroll", () => show(null), { passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && show(null));
})();

// A click on a column head sorts its table: numbers by value, everything else as text; stable.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const number = Number.parseFloat(cell.dataset.sort);
    return Number.isNaN(number) ? cell.textContent.trim() : number;
  };

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(table, head, column) {
    const rising = head.getAttribute("aria-sort") === "descending" ||
      (!head.hasAttribute("aria-sort") && !head.classList.contains("number"));
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].sort(
      (a, b) => (rising ? 1 : -1) * compare(value(a, column), value(b, column)));
    body.append(...rows);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, head, column));
    });
  }
})();
