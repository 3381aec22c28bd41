// A click on a heading sorts its table; numbers by value, words by the alphabet, unknown last.
document.querySelectorAll("table.sortable").forEach((table) => {
  const headings = [...table.tHead.rows[0].cells];
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    return cell.textContent === "\u2013" ? NaN : cell.textContent;
  };
  const compare = (a, b) => {
    const unknown = Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    if (unknown) return { last: unknown };
    const numbers = typeof a === "number" && typeof b === "number";
    return { order: numbers ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }) };
  };
  const sort = (heading, column) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const result = compare(key(a, column), key(b, column));
      return result.last || (down ? -1 : 1) * (result.order || 0);
    });
    table.tBodies[0].append(...rows);
  };
  headings.forEach((heading, column) => {
    heading.addEventListener("click", () => sort(heading, column));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(heading, column); }
    });
  });
});
