"use strict";
// one look for all rows of the table of differences
const rows = [...document.querySelectorAll("#table tbody tr")];
const field = (id) => document.getElementById(id);
function filter() {
  const words = field("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = words.every((word) => text.includes(word))
      && (!field("measure").value || row.dataset.measure === field("measure").value)
      && !(field("whole").checked && row.dataset.part);
    row.hidden = !fits;
    shown += fits;
  }
  field("shown").textContent = `${shown} of ${rows.length} rows`;
}
for (const id of ["filter", "measure", "whole"]) field(id).addEventListener("input", filter);
filter();
// numbers by value, words by letter; empty cells last, equal ones as they stood
const value = (row, place) => row.cells[place].textContent.trim();
const amount = (text) => /^[-+]?[\d,.]+$/.test(text) ? Number(text.replaceAll(",", "")) : NaN;
function compare(a, b, way) {
  if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
  const [left, right] = [amount(a), amount(b)];
  return way * (isNaN(left) || isNaN(right) ? a.localeCompare(b) : left - right);
}
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table");
    const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
    const body = table.tBodies[0];
    const sorted = [...body.rows].sort((a, b) => compare(value(a, head.cellIndex), value(b, head.cellIndex), way));
    body.append(...sorted);
  });
}
for (const key of document.querySelectorAll(".key")) {
  key.addEventListener("click", () => {
    const pressed = key.getAttribute("aria-pressed") !== "true";
    key.setAttribute("aria-pressed", pressed);
    for (const line of document.querySelectorAll("polyline"))
      if (line.dataset.variant === key.dataset.variant) line.style.display = pressed ? "" : "none";
  });
}
