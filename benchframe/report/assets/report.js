"use strict";
// What the page can do beyond being read. Without this script all of it can still be read.
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const one = (selector, root = document) => root.querySelector(selector);
  const live = one("#live");

  // Colours: system, light, dark.
  const theme = one("#theme"), themes = ["system", "light", "dark"];
  const dress = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    theme.textContent = "Colours: " + name;
    theme.setAttribute("aria-label", "Colours: " + name + "; press to change");
  };
  let dressed = 0;
  theme.addEventListener("click", () => dress(themes[++dressed % themes.length]));

  // Tables: sort by a head (numbers by value, what is missing last), filter by words and workload.
  const compare = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
  const frame = (table) => { // a line between workloads, as long as the rows of each stand together
    const sorted = one("th[aria-sort]", table), grouped = !sorted || sorted.cellIndex === 0;
    let last = null;
    for (const row of table.tBodies[0].rows) {
      if (row.hidden) continue;
      const name = row.cells[0].textContent;
      row.classList.toggle("first", grouped && last !== null && name !== last);
      last = name;
    }
  };
  for (const table of all("table.data")) {
    const body = table.tBodies[0], original = Array.from(body.rows);
    all("th", table).forEach((head, column) => one("button", head).addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      const next = was === "ascending" ? "descending" : was === "descending" ? null : "ascending";
      all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const numeric = original.some((row) => row.cells[column].dataset.v !== undefined);
      const key = (row) => {
        const cell = row.cells[column];
        return !numeric ? cell.textContent : cell.dataset.v === undefined ? null : Number(cell.dataset.v);
      };
      const rows = next === null ? original : original.slice().sort((x, y) => {
        const a = key(x), b = key(y);
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * compare(a, b);
      });
      body.append(...rows);
      frame(table);
      live.textContent = next ? "sorted by " + head.textContent.trim() + ", " + next : "in the order of the run";
    }));
    frame(table);
  }
  for (const bar of all(".bar")) {
    const table = document.getElementById(bar.dataset.for), words = one(".words", bar), pick = one(".pick", bar);
    const rows = Array.from(table.tBodies[0].rows), texts = rows.map((row) => row.textContent.toLowerCase());
    const count = one(".count", bar);
    const there = new Set(rows.map((row) => row.cells[0].textContent));
    Array.from(pick.options).slice(1).forEach((option) => { if (!there.delete(option.text)) option.remove(); });
    there.forEach((name) => pick.add(new Option(name)));
    const apply = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        const fits = (!pick.value || row.cells[0].textContent === pick.value) && wanted.every((word) => texts[i].includes(word));
        row.hidden = !fits;
        shown += fits;
      });
      count.textContent = shown === rows.length ? rows.length + (rows.length === 1 ? " row" : " rows") : shown + " of " + rows.length + " rows";
      frame(table);
    };
    words.addEventListener("input", apply);
    words.addEventListener("keydown", (event) => { if (event.key === "Escape") { words.value = ""; apply(); } });
    pick.addEventListener("change", apply);
    apply();
  }

  // Tooltips: a mark says what it shows, to the pointer, to touch, and to arrow keys in a panel that has the focus.
  const tip = one("#tip");
  let now = null;
  const hide = () => {
    if (now) now.classList.remove("now");
    now = null;
    tip.hidden = true;
  };
  const place = () => {
    if (!now) return;
    const box = now.getBoundingClientRect(), size = tip.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) return hide();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - size.width / 2), innerWidth - size.width - 8);
    const above = box.top - size.height - 8, below = Math.min(box.bottom + 8, innerHeight - size.height - 8);
    tip.style.left = left + "px";
    tip.style.top = (above > 8 ? above : below) + "px";
  };
  const show = (mark, speak) => {
    hide();
    now = mark;
    mark.classList.add("now");
    const text = mark.getAttribute("aria-label"), cut = text.indexOf(": ");
    const name = document.createElement("b");
    name.textContent = text.slice(0, cut);
    tip.replaceChildren(name, text.slice(cut + 2));
    tip.hidden = false;
    if (speak) {
      mark.scrollIntoView({block: "nearest", inline: "nearest", behavior: "instant"});
      live.textContent = text;
    }
    place();
  };
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest ? event.target.closest(".m") : null;
    if (mark) show(mark, false);
    else if (now && event.pointerType === "mouse" && !now.closest(".panel").matches(":focus-visible")) hide();
  });
  document.addEventListener("click", (event) => { if (!event.target.closest(".m")) hide(); });
  addEventListener("scroll", place, {passive: true, capture: true});
  for (const panel of all(".panel")) {
    const marks = all(".m", panel);
    panel.addEventListener("blur", hide);
    panel.addEventListener("keydown", (event) => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (event.key === "Escape") return hide();
      if (!step || !marks.length || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const at = marks.indexOf(now);
      show(marks[at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length], true);
    });
  }

  // Emphasis: the chosen strategies in all charts, the others dim.
  const chips = one("#chips"), chosen = new Set(), none = one(".none", chips);
  const emphasise = () => {
    all("svg [data-s]").forEach((mark) => mark.classList.toggle("on", chosen.has(mark.dataset.s)));
    all(".panel").forEach((panel) => panel.classList.toggle("dim", one(".on", panel) !== null));
    all("[data-s]", chips).forEach((chip) => chip.setAttribute("aria-pressed", String(chosen.has(chip.dataset.s))));
    none.hidden = chosen.size === 0;
  };
  chips.addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (!chip) return;
    if (chip === none) chosen.clear();
    else if (!chosen.delete(chip.dataset.s)) chosen.add(chip.dataset.s);
    emphasise();
  });

  // The section that is being read, in the list of sections.
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id).setAttribute("aria-current", "true");
    }
  }, {rootMargin: "-20% 0px -70% 0px"});
  links.forEach((link, id) => { const part = document.getElementById(id); if (part) seen.observe(part); });
})();
