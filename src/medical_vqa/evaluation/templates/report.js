"use strict";
(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const cards = [...document.querySelectorAll(".card")];
  const selects = [...form.querySelectorAll("select")];
  const shown = form.querySelector("output");
  const apply = () => {
    for (const card of cards) {
      card.hidden = selects.some((select) => select.value && card.dataset[select.name] !== select.value);
    }
    shown.value = `${cards.filter((card) => !card.hidden).length} of ${cards.length} shown`;
  };
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
