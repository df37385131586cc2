// Pages that the report writer really makes, from a real store, in headless Chromium: they load
// without a message or a request, everything is there, hostile names stay text.
// usage: report_real_test.mjs CHROMIUM MAKE_REPORT [SCREENSHOT_DIR]
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Browser } from './cdp.mjs';

const [chromium, maker, shots] = process.argv.slice(2);
const dir = mkdtempSync(join(tmpdir(), 'kbsup-report-'));
const STORY = 15; // records of the story around which the page is made
let failed = 0, count = 0;
function check(ok, what) {
	count++;
	if (!ok) failed++;
	console.log((ok ? 'ok ' : 'not ok ') + count + ' - ' + what);
}
const trouble = [], requests = [];
const b = await Browser.launch(chromium);
b.listeners.push((method, p) => {
	if (method === 'Runtime.exceptionThrown') trouble.push(p.exceptionDetails.exception?.description ?? p.exceptionDetails.text);
	if (method === 'Runtime.consoleAPICalled') trouble.push('console.' + p.type);
	if (method === 'Log.entryAdded') trouble.push(p.entry.text);
	if (method === 'Network.requestWillBeSent' && !p.request.url.startsWith('data:')) requests.push(p.request.url);
});
const text = id => b.eval(`document.getElementById("${id}").textContent`);
try {
	for (const n of [0, 1000, 90000]) {
		const file = join(dir, n + '.html');
		const html = execFileSync(maker, [String(n)], { maxBuffer: 1 << 28 });
		writeFileSync(file, html);
		await b.size(1280, 900);
		await b.open(pathToFileURL(file).href);
		check(await b.eval('document.title') === 'kbsup report: brave-otter', n + ': loads');
		check((await text('count')).startsWith((n + STORY).toLocaleString('en') + ' record'), n + ': every record');
		check((await text('denied')).includes('fs deny "~/.ssh"') && (await text('denied')).includes('base.policy:14'), n + ': a denial with its rule and line');
		check((await text('denied')).includes('to allow it: fs read "~/.ssh/id_ed25519"'), n + ': and what would allow it');
		check((await text('denied')).includes('cat(103) ← make(100)'), n + ': and who');
		check((await text('tree')).includes('rm -rf dist'), n + ': the tree');
		check(await b.eval('JSON.parse(document.getElementById("data").textContent).session.verify') === 'intact', n + ': verified');
		if (n) {
			const body = await b.eval('JSON.parse(document.getElementById("data").textContent).strings.join("\\n")');
			check(body.includes('~/</script><script>window.pwned=1</script>'), n + ': hostile names are kept');
			check(body.includes('~/a\\nb\\xff\\x1b[31m') && !/[\u0000-\u0009\u000b-\u001f\u202e]/.test(body), n + ': and escaped');
			check(await b.eval('window.pwned') === undefined && await b.eval('document.querySelectorAll("img").length') === 0, n + ': and stay text');
		}
		if (shots) await b.screenshot(join(shots, 'real-' + n + '.png'), true);
	}
	await b.size(1280, 900, true);
	if (shots) await b.screenshot(join(shots, 'real-dark.png'), true);
	check(trouble.length === 0, 'no console message, no exception ' + trouble.slice(0, 3).join(' | '));
	check(requests.every(u => u.startsWith('file://' + dir)), 'no request but the page itself');
} finally {
	await b.close();
	rmSync(dir, { recursive: true, force: true });
}
console.log('1..' + count);
process.exit(failed ? 1 : 0);
