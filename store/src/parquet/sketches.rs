//! Aggregate functions of stored sketches, so that DataFusion merges them like any number.
//!
//! Both take and give the stored form (`flagmint_schemas::sketch`), which is also the state of a partial aggregation.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use flagmint_schemas::sketch::latency::Histogram;
use flagmint_schemas::sketch::unique::Registers;

/// Adds latency histograms.
pub(super) fn histogram_sum() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(AggregateUDF::new_from_impl(SketchMerge::new(Kind::Histogram))));
    Arc::clone(&FUNCTION)
}

/// Merges HyperLogLog registers by maximum.
pub(super) fn registers_max() -> Arc<AggregateUDF> {
    static FUNCTION: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(AggregateUDF::new_from_impl(SketchMerge::new(Kind::Registers))));
    Arc::clone(&FUNCTION)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Histogram,
    Registers,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SketchMerge {
    kind: Kind,
    signature: Signature,
}

impl SketchMerge {
    fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::exact(vec![DataType::Binary], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for SketchMerge {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Histogram => "histogram_sum",
            Kind::Registers => "registers_max",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match self.kind {
            Kind::Histogram => Box::new(Groups::<Histogram>::default()),
            Kind::Registers => Box::new(Groups::<Registers>::default()),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(args.name, DataType::Binary, true))])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match self.kind {
            Kind::Histogram => Box::new(Groups::<Histogram>::default()),
            Kind::Registers => Box::new(Groups::<Registers>::default()),
        })
    }
}

/// A sketch that merges with its stored form.
trait Sketch: std::fmt::Debug + Default + Send + Sync + 'static {
    fn add(&mut self, stored: &[u8]) -> Result<()>;
    fn stored(&self) -> Vec<u8>;
    /// Bytes of heap.
    fn heap(&self) -> usize;
}

impl Sketch for Histogram {
    fn add(&mut self, stored: &[u8]) -> Result<()> {
        self.merge_sum_encoded(stored).map_err(|error| DataFusionError::External(error.into()))
    }

    fn stored(&self) -> Vec<u8> {
        self.encode()
    }

    fn heap(&self) -> usize {
        size_of_val(self.entries())
    }
}

impl Sketch for Registers {
    fn add(&mut self, stored: &[u8]) -> Result<()> {
        self.merge_encoded(stored).map_err(|error| DataFusionError::External(error.into()))
    }

    fn stored(&self) -> Vec<u8> {
        self.encode()
    }

    fn heap(&self) -> usize {
        flagmint_schemas::sketch::unique::REGISTERS
    }
}

/// One sketch per group.
#[derive(Debug, Default)]
struct Groups<S>(Vec<S>);

impl<S: Sketch> GroupsAccumulator for Groups<S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        if opt_filter.is_some() {
            return internal_err!("sketches are merged without FILTER clauses");
        }
        self.0.resize_with(total_num_groups, S::default);
        for (stored, group) in values[0].as_binary::<i32>().iter().zip(group_indices) {
            self.0[*group].add(stored.unwrap_or_default())?;
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.0);
        Ok(Arc::new(BinaryArray::from_iter_values(groups.iter().map(S::stored))))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![GroupsAccumulator::evaluate(self, emit_to)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        GroupsAccumulator::update_batch(self, values, group_indices, None, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::clone(&values[0])])
    }

    fn size(&self) -> usize {
        self.0.iter().map(|sketch| size_of::<S>() + sketch.heap()).sum()
    }
}

/// Without grouping there is one group, or none while there was no row.
impl<S: Sketch> Accumulator for Groups<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values[0].null_count() == values[0].len() {
            return Ok(());
        }
        let groups = vec![0; values[0].len()];
        GroupsAccumulator::update_batch(self, values, &groups, None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(self.0.first().map(S::stored)))
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![Accumulator::evaluate(self)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        Accumulator::update_batch(self, states)
    }
}
