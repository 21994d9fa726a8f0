//! The rows of a chunk's cells that have changed, with their values as they are now.

use flagmint_schemas::rollup::{
    ChunkCell, DecisionCell, FlagCell, LatencyCell, LedgerCell, TotalCell, UniqueCell, UsageCell, UserCell,
};

use super::chunk::{Chunk, ChunkId, Total};
use super::emission::{Emitted, Part};
use super::histograms::Place;
use super::keys::Environment;
use super::uniques::{Changed, Counted};

impl Chunk {
    /// Hands over the cells that changed since the last time; all that remain if the chunk is `complete`.
    pub fn emit(&mut self, complete: bool, out: &mut Emitted) {
        if !(self.is_dirty || complete) {
            return;
        }
        self.is_dirty = false;
        self.emit_counts(out);
        self.emit_flags(out);
        self.emit_uniques(out);
        self.emit_contexts(complete, out);
        self.emit_ledger(out);
        let ChunkId { epoch, partition, chunk } = self.id;
        out.chunks.push(ChunkCell {
            time_us: self.start_us,
            epoch,
            partition,
            chunk,
            records: self.records,
            next_offset: self.next_offset,
            complete: u64::from(complete),
        });
    }

    /// Hands over some of them.
    pub fn emit_part(&mut self, part: Part, out: &mut Emitted) {
        match part {
            Part::Counts => self.emit_counts(out),
            Part::Contexts => self.emit_contexts(false, out),
        }
    }

    fn emit_counts(&mut self, out: &mut Emitted) {
        self.emit_decisions(out);
        self.emit_latency(out);
        self.emit_totals(out);
        self.emit_usage(out);
    }

    fn named(&self, environment: u32) -> Environment {
        self.environments[environment as usize]
    }

    fn text_of(&self, number: u32) -> String {
        self.texts[number as usize].to_string()
    }

    fn emit_decisions(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.decisions.take_dirty();
        out.decisions.reserve(dirty.len());
        for slot in dirty {
            let (key, decisions) = self.decisions.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.decisions.push(DecisionCell {
                organization,
                project,
                environment,
                flag: key.flag,
                variation: key.variation,
                reason: key.reason,
                error_code: key.error_code,
                rule: key.rule,
                source: self.text_of(key.source),
                measure: key.measure,
                counting: key.counting,
                time_us: key.minute_us,
                epoch,
                partition,
                chunk,
                count: decisions.count,
            });
        }
    }

    fn emit_latency(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.latency.take_dirty();
        let places: Vec<Place> = dirty.iter().map(|slot| self.latency.get(*slot).1.place).collect();
        out.latency.reserve(dirty.len());
        for (slot, buckets) in dirty.into_iter().zip(self.histograms.encode(&places)) {
            let (key, latency) = self.latency.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.latency.push(LatencyCell {
                organization,
                project,
                environment,
                flag: key.flag,
                counting: key.counting,
                time_us: key.minute_us,
                epoch,
                partition,
                chunk,
                count: latency.count,
                latency_us: latency.latency_us,
                evaluation_ns: latency.evaluation_ns,
                buckets,
            });
        }
    }

    fn emit_flags(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.flags.take_dirty();
        out.flags.reserve(dirty.len());
        for slot in dirty {
            let (key, tallies) = self.flags.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.flags.push(FlagCell {
                organization,
                project,
                environment,
                flag: key.flag,
                counting: key.counting,
                time_us: key.hour_us,
                epoch,
                partition,
                chunk,
                served: tallies.served,
                reported: tallies.reported,
                errors: tallies.errors,
                app_errors: tallies.app_errors,
                goals: tallies.goals,
            });
        }
    }

    fn emit_totals(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.totals.take_dirty();
        let sum = |slot: &u32| {
            let (key, total) = self.totals.get(*slot);
            (total.board, key.counting)
        };
        let sums: Vec<(u32, u8)> = dirty.iter().map(sum).collect();
        out.totals.reserve(dirty.len());
        for (slot, buckets) in dirty.into_iter().zip(self.histograms.encode_sums(&sums)) {
            let (key, Total { tallies, latency_us, evaluation_ns, .. }) = self.totals.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.totals.push(TotalCell {
                organization,
                project,
                environment,
                counting: key.counting,
                time_us: key.minute_us,
                epoch,
                partition,
                chunk,
                served: tallies.served,
                reported: tallies.reported,
                errors: tallies.errors,
                app_errors: tallies.app_errors,
                goals: tallies.goals,
                latency_us: *latency_us,
                evaluation_ns: *evaluation_ns,
                buckets,
            });
        }
    }

    fn emit_usage(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.usage.take_dirty();
        out.usage.reserve(dirty.len());
        for slot in dirty {
            let (key, usage) = self.usage.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.usage.push(UsageCell {
                organization,
                project,
                environment,
                key: key.key,
                transport: key.transport,
                sdk_name: self.text_of(key.sdk_name),
                sdk_version: self.text_of(key.sdk_version),
                time_us: key.minute_us,
                epoch,
                partition,
                chunk,
                api_calls: usage.api_calls,
                connections: usage.connections,
                track_events: usage.track_events,
                calls: usage.calls,
                failed_calls: usage.failed_calls,
            });
        }
    }

    fn emit_uniques(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        for Changed { environment, counted, day_us: time_us, registers } in self.uniques.take_changed() {
            let Environment { organization, project, environment } = self.named(environment);
            match counted {
                Counted::Of(flag, variation) => out.uniques.push(UniqueCell {
                    organization,
                    project,
                    environment,
                    flag,
                    variation,
                    time_us,
                    epoch,
                    partition,
                    chunk,
                    registers,
                }),
                Counted::Users => out.users.push(UserCell {
                    organization,
                    project,
                    environment,
                    time_us,
                    epoch,
                    partition,
                    chunk,
                    registers,
                }),
            }
        }
    }

    fn emit_ledger(&mut self, out: &mut Emitted) {
        let ChunkId { epoch, partition, chunk } = self.id;
        let dirty = self.ledger.take_dirty();
        out.ledger.reserve(dirty.len());
        for slot in dirty {
            let (key, ledger) = self.ledger.get(slot);
            let Environment { organization, project, environment } = self.named(key.environment);
            out.ledger.push(LedgerCell {
                organization,
                project,
                environment,
                time_us: key.hour_us,
                epoch,
                partition,
                chunk,
                records: ledger.records,
                produced: ledger.produced,
                counted: ledger.counted,
                calls: ledger.calls,
                duplicate_records: ledger.duplicate_records,
                duplicate_decisions: ledger.duplicate_decisions,
                parked_records: ledger.parked_records,
                parked_decisions: ledger.parked_decisions,
                gaps: ledger.gaps,
                clamped: ledger.clamped,
                estimated_missing: ledger.estimated_missing,
            });
        }
    }
}
