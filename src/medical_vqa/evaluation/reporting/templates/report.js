"use strict";
(() => {
  const firstCards = 24; // the other cards appear after a click, so that the page stays easy to scroll
  const form = document.querySelector(".filters");
  const showAll = document.querySelector(".show-all");
  const cards = [...document.querySelectorAll(".card")];
  const selects = [...form.querySelectorAll("select")];
  const status = form.querySelector("output");
  let allVisible = false;
  const apply = () => {
    const matching = cards.filter((card) =>
      selects.every((select) => !select.value || card.dataset[select.name] === select.value));
    const visible = new Set(allVisible ? matching : matching.slice(0, firstCards));
    for (const card of cards) card.hidden = !visible.has(card);
    showAll.hidden = visible.size === matching.length;
    showAll.textContent = `Show all ${matching.length}`;
    status.value = `${visible.size} of ${matching.length} shown`;
  };
  const reveal = () => { allVisible = true; apply(); };
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  showAll.addEventListener("click", reveal);
  window.addEventListener("beforeprint", reveal);
  form.hidden = false;
  apply();
})();
