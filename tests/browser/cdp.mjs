// Drives headless Chromium over its debugging pipe (fds 3 and 4, JSON messages ended by NUL):
// the DevTools protocol without any package. https://chromedevtools.github.io/devtools-protocol/
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const CALL_MS = 60000;

export class Browser {
	static async launch(program) {
		const b = new Browser();
		b.profile = mkdtempSync(join(tmpdir(), 'kbsup-chromium-'));
		b.child = spawn(program, ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
			'--disable-extensions', '--disable-background-networking', '--disable-component-update', '--hide-scrollbars',
			`--user-data-dir=${b.profile}`, '--remote-debugging-pipe', 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
		b.next = 1;
		b.waiting = new Map();
		b.listeners = [];
		let rest = '';
		b.child.stdio[4].on('data', chunk => {
			const parts = (rest + chunk).split('\0');
			rest = parts.pop();
			parts.forEach(p => b.receive(JSON.parse(p)));
		});
		b.child.on('exit', () => b.waiting.forEach(w => w.reject(new Error('the browser ended'))));
		const { targetInfos } = await b.call('Target.getTargets');
		const { sessionId } = await b.call('Target.attachToTarget', { targetId: targetInfos.find(t => t.type === 'page').targetId, flatten: true });
		b.session = sessionId;
		for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await b.call(domain + '.enable');
		return b;
	}
	receive(msg) {
		if (msg.id) {
			const w = this.waiting.get(msg.id);
			this.waiting.delete(msg.id);
			clearTimeout(w.timer);
			return msg.error ? w.reject(new Error(msg.error.message)) : w.resolve(msg.result);
		}
		this.listeners.forEach(l => l(msg.method, msg.params));
	}
	call(method, params = {}) {
		const id = this.next++;
		return new Promise((resolve, reject) => {
			const timer = setTimeout(() => reject(new Error(method + ' took too long')), CALL_MS);
			this.waiting.set(id, { resolve, reject, timer });
			this.child.stdio[3].write(JSON.stringify({ id, method, params, sessionId: this.session }) + '\0');
		});
	}
	async open(url) {
		const loaded = new Promise(resolve => this.listeners.push(m => m === 'Page.loadEventFired' && resolve()));
		await this.call('Page.navigate', { url });
		await loaded;
	}
	async eval(expression) {
		const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
		if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
		return result.value;
	}
	async size(width, height, dark = false, media = '') {
		await this.call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
		await this.call('Emulation.setEmulatedMedia', { media, features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
	}
	async screenshot(file, whole = false) {
		const { data } = await this.call('Page.captureScreenshot', { format: 'png', captureBeyondViewport: whole });
		writeFileSync(file, Buffer.from(data, 'base64'));
	}
	async close() {
		await this.call('Browser.close').catch(() => {});
		await new Promise(resolve => this.child.exitCode === null ? this.child.on('exit', resolve) : resolve());
		rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
	}
}
