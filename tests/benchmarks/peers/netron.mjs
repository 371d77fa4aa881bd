// Opens a file with Netron's reader, and says how many ops or tensors it finds: DIRECTORY-OF-NETRON FILE
import { readFile, stat } from 'node:fs/promises';
import { statSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [directory, file] = process.argv.slice(2);
const load = (id) => import(pathToFileURL(path.join(directory, `${id.replace(/^\.\//, '')}.js`)));
const base = await load('base');
const node = await load('node');
const view = await load('view');

class Context {
    constructor(name, stream) { this.identifier = name; this.stream = stream; this.entries = new Map(); }
    async asset(name) { return readFile(path.join(directory, name), 'utf-8'); }
    async request(name, encoding, root) { return this.fetch(name, encoding, root); }
    async fetch(name, encoding, root) {
        if (encoding) { return readFile(path.join(root === undefined ? path.dirname(file) : directory, name), encoding); }
        const found = path.join(path.dirname(file), name);
        const status = statSync(found);
        return new node.FileStream(found, 0, status.size, status.mtimeMs);
    }
    async require(id) { return load(id); }
    error(error) { throw error; }
}
const status = await stat(file);
const stream = new node.FileStream(file, 0, status.size, status.mtimeMs);
const host = { require: load, environment: () => null, event() {}, error(e) { throw e; }, exception(e) { throw e; }, worker: () => null };
const service = new view.ModelFactoryService(host);
const model = await service.open(new Context(path.basename(file), stream));
let ops = 0;
let tensors = 0;
for (const target of [...(model.modules || []), ...(model.graphs || [])]) {
    for (const op of target.nodes || []) {
        ops += 1;
        tensors += (op.inputs || []).reduce((n, argument) => n + (argument.value || []).filter((v) => v && v.initializer).length, 0);
    }
}
console.log(`${model.format}: ${ops} ops, ${tensors} tensors`);
