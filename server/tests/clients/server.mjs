// What an application on Node sees through @openfeature/server-sdk and @openfeature/ofrep-provider.
// node server.mjs INSTALLED URL KEY: prints {user: {flag: {value, reason, variant}}}; a failed check ends it with a stack trace.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [installed, baseUrl, key] = process.argv.slice(2);
const require = createRequire(`${installed}/`);
const { OpenFeature } = require('@openfeature/server-sdk');
const { OFREPProvider } = require('@openfeature/ofrep-provider');

const provider = (key) => new OFREPProvider({ baseUrl, headers: [['X-API-Key', key]] });
await OpenFeature.setProviderAndWait(provider(key));
const client = OpenFeature.getClient();

const found = {};
for (let number = 0; number < 20; number++) {
  const context = { targetingKey: `user-${number}`, country: number % 2 ? 'IE' : 'DE', nested: { list: [1, null, { a: true }] } };
  const details = {
    welcome: await client.getBooleanDetails('welcome', false, context),
    button: await client.getStringDetails('button', 'none', context),
    size: await client.getNumberDetails('size', -1, context),
    pricing: await client.getObjectDetails('pricing', {}, context),
    irish: await client.getBooleanDetails('irish', false, context),
    halted: await client.getBooleanDetails('halted', false, context),
  };
  found[context.targetingKey] = Object.fromEntries(Object.entries(details).map(([flag, it]) => {
    assert.equal(it.errorCode, undefined, `${flag}: ${it.errorMessage}`);
    return [flag, { value: it.value, reason: it.reason, variant: it.variant }];
  }));
  assert.equal(details.irish.reason, number % 2 ? 'TARGETING_MATCH' : 'UNKNOWN');
  assert.equal(details.irish.flagMetadata.flagmintReason, number % 2 ? 'TARGETING_MATCH' : 'DEFAULT');
  assert.equal(details.halted.reason, 'DISABLED');
}

const user = { targetingKey: 'u' };
const welcome = await client.getBooleanDetails('welcome', false, user);
assert.equal(welcome.flagMetadata.team, 'web');
assert.equal(welcome.flagMetadata.nested, undefined);
assert.ok(Number.isInteger(welcome.flagMetadata.configVersion));
const failed = async (flag, context, code) => {
  const details = await client.getStringDetails(flag, 'default', context);
  assert.deepEqual([details.value, details.errorCode], ['default', code], flag);
};
await failed('no-such-flag', user, 'FLAG_NOT_FOUND');
await failed('button', { country: 'IE' }, 'TARGETING_KEY_MISSING');
await failed('welcome', user, 'TYPE_MISMATCH');

await OpenFeature.setProviderAndWait('strangers', provider('ff_unknown'));
const refused = await OpenFeature.getClient('strangers').getBooleanDetails('welcome', false, user);
assert.deepEqual([refused.value, refused.errorCode], [false, 'GENERAL']);

console.log(JSON.stringify(found));
await OpenFeature.close();
