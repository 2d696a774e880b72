#!/usr/bin/env bash
# Fetches the scripts that BertViz's head view needs, and their licences, from the npm registry into this folder.
# BertViz 1.4.1 itself would load d3, jQuery and require.js from another site; here its page loads nothing.
# Run it only to change a version: then run it, look at the differences, and commit what it wrote.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # fetch NAME VERSION: the package's folder, unpacked
  (cd "$work" && npm pack --silent "$1@$2" > /dev/null && mkdir "$1" && tar -xzf "$1-$2.tgz" -C "$1" --strip-components=1)
}

# d3 5.16 in the parts that the head view uses (75 kB instead of 248 kB). Order matters: later parts use earlier ones.
: > "$work/d3-parts.min.js"
: > "$work/d3-LICENSE.txt"
for part in array@1.2.4 collection@1.0.7 color@1.4.1 interpolate@1.4.0 scale@2.2.2 scale-chromatic@1.5.0 selection@1.4.2; do
  name=d3-${part%@*} version=${part#*@}
  fetch "$name" "$version"
  cat "$work/$name/dist/$name.min.js" >> "$work/d3-parts.min.js"
  echo >> "$work/d3-parts.min.js"
  { echo "== $name $version =="; cat "$work/$name/LICENSE"; echo; } >> "$work/d3-LICENSE.txt"
done
fetch jquery 3.7.1
cp "$work/jquery/dist/jquery.slim.min.js" "$work/d3-parts.min.js" "$work/d3-LICENSE.txt" .
cp "$work/jquery/LICENSE.txt" jquery-LICENSE.txt
sha256sum ./*.js ./*-LICENSE.txt | sed 's| \./| |' > SHA256SUMS
cat SHA256SUMS
