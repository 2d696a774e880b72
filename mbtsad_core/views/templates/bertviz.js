// What BertViz asks of require.js: settings, which do not matter here, and a call with jQuery and d3.
function requirejs(names, ready) { ready(jQuery, d3); }
d3.version = '5.16.0';
function bertvizParams() {
  const given = JSON.parse(document.getElementById('given').textContent), bytes = atob(given.maps);
  let at = 0;
  const rows = (n, make) => Array.from({length: n}, make), T = given.tokens.length;
  const attn = rows(given.layers.length, () => rows(given.heads, () => rows(T, () => rows(T, () => bytes.charCodeAt(at++) / 255))));
  return {attention: [{name: null, attn, left_text: given.tokens, right_text: given.tokens}], default_filter: '0', root_div_id: 'bertviz',
    layer: given.layer, heads: null, include_layers: given.layers};
}
