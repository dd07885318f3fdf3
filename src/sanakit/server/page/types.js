// What travels between the modules of the page and the server. Types alone: see bodies.py for their meaning.

/**
 * @typedef {object} Picture
 * @property {string} id
 * @property {number} index
 * @property {string} seed
 * @property {number} width
 * @property {number} height
 * @property {string} url
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {string} model
 * @property {Record<string, any>} request
 * @property {string|null} live
 * @property {"queued"|"running"|"done"|"failed"|"cancelled"} state
 * @property {number} step
 * @property {number} total
 * @property {number|null} position
 * @property {number|null} eta
 * @property {Picture[]} pictures
 * @property {string|null} error
 * @property {string[]} notes
 *
 * @typedef {object} JobEvent
 * @property {string} kind
 * @property {Job} job
 * @property {string|null} preview
 * @property {Picture|null} picture
 * @property {string|null} message
 *
 * @typedef {object} Model
 * @property {string} name
 * @property {boolean} default
 * @property {{width: number, height: number, steps: number, guidance: number, solver: string}} defaults
 * @property {string[]} solvers
 * @property {boolean} few_steps
 * @property {string|null} about
 * @property {string[]|null} words
 * @property {boolean} edit
 * @property {number} max_side
 *
 * @typedef {object} Toybox
 * @property {Record<string, string>} shapes    word -> its plural
 * @property {string[]} colours
 * @property {string[]} materials
 * @property {string[]} sizes
 * @property {string[]} relations
 * @property {Record<string, string>} floors    word -> how a prompt says it
 * @property {Record<string, string>} lights
 * @property {number} most_objects
 *
 * @typedef {object} Capabilities
 * @property {string} version
 * @property {Model[]} models
 * @property {{name: string}[]} loras
 * @property {{name: string}[]} controls
 * @property {string[]} annotators
 * @property {Limits} limits
 * @property {Toybox|null} toybox
 *
 * @typedef {object} Limits
 * @property {number} queue
 * @property {number} count
 * @property {number} steps
 * @property {number} pixels
 * @property {number} body
 * @property {number} cells
 * @property {number|null} keep_days        how long finished jobs stay; null for ever
 * @property {number|null} keep_pictures    newest pictures that stay
 *
 * @typedef {object} Region      words for a box; left, top, width and height in fractions of the picture
 * @property {[number, number, number, number]} box
 * @property {string} prompt
 *
 * @typedef {object} Settings    what the form holds; see settings.js
 * @property {string} model
 * @property {string} prompt
 * @property {string} negative
 * @property {number} width
 * @property {number} height
 * @property {number} steps
 * @property {number} guidance
 * @property {string} seed
 * @property {boolean} locked    whether the next picture keeps the seed
 * @property {number} count
 * @property {string} solver
 * @property {boolean} live      draw while typing
 * @property {Edit|null} edit
 * @property {Region[]} regions
 * @property {Record<string, number>} loras    name -> weight, of those that are on
 * @property {ControlChoice|null} control
 *
 * @typedef {object} Edit        a picture to change
 * @property {string} source     data: URL
 * @property {string} name
 * @property {number} width
 * @property {number} height
 * @property {string|null} mask  data: URL, white where to draw anew
 * @property {number} strength
 * @property {string} sourcePrompt    what it shows, for an edit by words alone
 * @property {[number, number, number, number]} outpaint    margins in pixels: left, top, right, bottom
 *
 * @typedef {object} ControlChoice
 * @property {string} name
 * @property {string} picture    data: URL
 * @property {string|null} annotator
 * @property {number} scale
 * @property {number} [start]
 * @property {number} [end]
 * @property {string} [fit]
 */

export {};
