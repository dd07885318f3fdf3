// Pictures as files, blobs and data: URLs.

/** @param {Blob} blob @returns {Promise<string>} a data: URL */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error("The file can't be read."));
    reader.readAsDataURL(blob);
  });
}

/** @param {string} url @returns {Promise<HTMLImageElement>} an image that can be drawn; rejects if it is none */
export async function loadImage(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new Error("This file isn't a picture that the browser can read.");
  }
  return image;
}

/** @param {Blob} blob @returns {Promise<{url: string, width: number, height: number}>} */
export async function readPicture(blob) {
  const url = await dataUrl(blob);
  const image = await loadImage(url);
  return { url, width: image.naturalWidth, height: image.naturalHeight };
}

/** @param {string} url @returns {Promise<Blob>} */
export async function fetchBlob(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error("The picture can't be fetched.");
  return response.blob();
}

/** Save a file of the server. @param {string} url @param {string} name */
export function download(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

/** @param {string} prompt @param {string} seed @returns {string} a file name that tells what is inside */
export function fileName(prompt, seed) {
  const plain = prompt.normalize("NFKD").toLowerCase();
  const words = plain
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 60);
  return `${words || "picture"}-${seed}.png`;
}
