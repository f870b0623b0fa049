document.querySelectorAll("table.sort").forEach(function (table) {
  table.querySelectorAll("th").forEach(function (th, column) {
    th.querySelector("button").addEventListener("click", function () {
      var up = th.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach(function (h) { h.removeAttribute("aria-sort"); });
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      var body = table.tBodies[0];
      var key = function (row) { return row.cells[column].dataset.v || row.cells[column].textContent.trim(); };
      Array.from(body.rows).sort(function (a, b) {
        var x = key(a), y = key(b), m = parseFloat(x), n = parseFloat(y);
        if (isNaN(m) !== isNaN(n)) { return isNaN(m) ? 1 : -1; }   // cells without a number stay last
        var order = isNaN(m) ? x.localeCompare(y) : m - n;
        return up ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
