"use strict";
const body = document.querySelector("tbody"), rows = [...body.rows];
const heads = [...document.querySelectorAll("th")], selects = [...document.querySelectorAll("select")];
const since = document.getElementById("since"), search = document.getElementById("search");
const dates = heads.findIndex((head) => head.textContent === "date");
function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const good = selects.every((one) => !one.value || row.cells[one.dataset.column].textContent === one.value)
      && (!since.value || row.cells[dates].textContent >= since.value)
      && words.every((word) => text.includes(word));
    row.hidden = !good;
    count += good;
  }
  document.getElementById("count").textContent = count + " shown";
}
function sort(at) {
  const up = heads[at].getAttribute("aria-sort") !== "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[at].setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => "sort" in row.cells[at].dataset ? Number(row.cells[at].dataset.sort) : row.cells[at].textContent;
  const sorted = rows.map((row) => [key(row), row]);
  sorted.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
  body.append(...sorted.map(([, row]) => row));
}
heads.forEach((head, at) => {
  head.addEventListener("click", () => sort(at));
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(at); });
});
for (const one of [...selects, since, search]) one.addEventListener("input", show);
show();
