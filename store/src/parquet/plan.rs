//! From sources to merged rows: filter, then group and merge across chunks, as one physical plan of DataFusion.
//!
//! The plan is built directly, because there is only this one shape: parsing and optimising would take longer than most
//! questions. Merging within a chunk is not part of it: memory merges emissions as they come, and a chunk is either
//! there or in files, so every key occurs once.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::{AggregateUDF, Operator};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{BinaryExpr, Column as ColumnOf, in_list, lit};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, collect};
use flagmint_schemas::ids::OrganizationId;
use flagmint_schemas::rollup::{Column, Role, Table};
use uuid::Uuid;

use super::scan::{Projection, Scan, Source};
use super::sketches::{histogram_sum, registers_max};
use crate::Filter;
use crate::limits::{PARALLEL_ROWS_MIN, QUERY_THREADS};
use crate::query::{Rounding, wanted};

/// What is to be merged, without paging.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    pub(super) table: Table,
    pub(super) organization: Option<OrganizationId>,
    pub(super) filters: &'a [Filter],
    pub(super) group_by: &'a [&'static str],
    /// Times are rounded down and kept apart; `None` for one row over the whole range.
    pub(super) times: Option<Rounding>,
    /// As in [`crate::RollupQuery`].
    pub(super) values: Option<&'a [&'static str]>,
}

/// The column of an organization: every table that belongs to tenants has it.
const ORGANIZATION: &str = "organization";

impl Merge<'_> {
    /// Merged rows of some sources.
    pub(super) async fn run(&self, sources: Vec<Source>, context: Arc<TaskContext>) -> Result<RecordBatch> {
        let projection = Arc::new(self.projection());
        let plan = self.plan(sources, &projection)?;
        let batches = collect(Arc::clone(&plan), context).await?;
        let merged = concat_batches(&plan.schema(), &batches)?;
        let schema = self.answer_schema();
        // Without grouping, an aggregation over no rows still gives one, of nulls.
        if merged.num_rows() == 0 || merged.columns().iter().any(|column| column.null_count() > 0) {
            return Ok(RecordBatch::new_empty(schema));
        }
        Ok(RecordBatch::try_new(schema, merged.columns().to_vec())?)
    }

    /// The schema of the answer: dimensions asked for, time, values.
    pub(super) fn answer_schema(&self) -> SchemaRef {
        let table = self.table.schema();
        let keys = self.group_by.iter().copied().chain(self.times.map(|_| self.time()));
        let values = wanted(self.table, self.values).map(|column| column.name);
        let field = |name| table.field_with_name(name).expect("names were checked").clone();
        Arc::new(Schema::new(keys.chain(values).map(field).collect::<Vec<Field>>()))
    }

    fn time(&self) -> &'static str {
        let time = self.table.columns().iter().find(|column| column.role == Role::Time);
        time.expect("every table has a time").name
    }

    fn projection(&self) -> Projection {
        let filtered = self.filters.iter().map(|filter| match filter {
            Filter::IdIn(column, _) | Filter::CodeIn(column, _) | Filter::TextIs(column, _) => *column,
        });
        let dimensions: Vec<&str> =
            filtered.chain(self.group_by.iter().copied()).chain(self.organization.map(|_| ORGANIZATION)).collect();
        let columns = self.table.columns();
        let values: Vec<&str> = wanted(self.table, self.values).map(|column| column.name).collect();
        let needed = |at: &usize| {
            let Column { name, role, .. } = &columns[*at];
            *role == Role::Time || values.contains(name) || dimensions.contains(name)
        };
        let kept: Vec<usize> = (0..columns.len()).filter(needed).collect();
        let schema = self.table.schema().project(&kept).expect("the columns are the table's");
        let at = |name: &str| columns.iter().position(|column| column.name == name).expect("names were checked");
        let ids = self.filters.iter().filter_map(|filter| match filter {
            Filter::IdIn(column, ids) => Some((at(column), ids.clone())),
            _ => None,
        });
        let organization = self.organization.map(|organization| (at(ORGANIZATION), vec![organization.0]));
        Projection {
            time: kept.iter().position(|at| columns[*at].role == Role::Time).expect("time is always read"),
            conditions: organization.into_iter().chain(ids).collect(),
            columns: kept,
            times: self.times.unwrap_or(Rounding::NONE),
            schema: Arc::new(schema),
        }
    }

    fn plan(&self, sources: Vec<Source>, projection: &Arc<Projection>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = &projection.schema;
        let parts = shares(sources);
        let parallel = parts.len() > 1;
        let parts = parts
            .into_iter()
            .map(|sources| Arc::new(Scan { sources, projection: Arc::clone(projection) }) as Arc<dyn PartitionStream>);
        let scan = StreamingTableExec::try_new(Arc::clone(schema), parts.collect(), None, [], false, None)?;
        let mut plan: Arc<dyn ExecutionPlan> = Arc::new(scan);
        if let Some(condition) = self.condition(schema)? {
            plan = Arc::new(FilterExec::try_new(condition, plan)?);
        }
        let keys = self.group_by.iter().copied().chain(self.times.map(|_| self.time()));
        let keys = keys.map(|name| Ok((column(name, schema)?, name.to_owned()))).collect::<Result<_>>()?;
        let keys = PhysicalGroupBy::new_single(keys);
        let values = self.values(schema)?;
        let aggregate = |mode, keys, plan| {
            let unfiltered = vec![None; values.len()];
            AggregateExec::try_new(mode, keys, values.clone(), unfiltered, plan, Arc::clone(schema)).map(Arc::new)
        };
        if !parallel {
            return Ok(aggregate(AggregateMode::Single, keys, plan)?);
        }
        let merged_keys = keys.as_final();
        let partial = aggregate(AggregateMode::Partial, keys, plan)?;
        Ok(aggregate(AggregateMode::Final, merged_keys, Arc::new(CoalescePartitionsExec::new(partial)))?)
    }

    /// The tenant and all filters. The tenant is in every plan that is asked for one, whatever a source left out.
    fn condition(&self, schema: &SchemaRef) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let one_of = |name: &str, values: Vec<ScalarValue>| {
            in_list(column(name, schema)?, values.into_iter().map(lit).collect(), &false, schema)
        };
        let id = |id: &Uuid| ScalarValue::FixedSizeBinary(16, Some(id.as_bytes().to_vec()));
        let organization = self.organization.map(|organization| one_of(ORGANIZATION, vec![id(&organization.0)]));
        let filters = self.filters.iter().map(|filter| match filter {
            Filter::IdIn(name, ids) => one_of(name, ids.iter().map(id).collect()),
            Filter::CodeIn(name, codes) => one_of(name, codes.iter().map(|code| ScalarValue::from(*code)).collect()),
            Filter::TextIs(name, text) => one_of(name, vec![ScalarValue::from(text.as_str())]),
        });
        let mut all: Option<Arc<dyn PhysicalExpr>> = None;
        for condition in organization.into_iter().chain(filters) {
            let condition = condition?;
            all = Some(match all {
                Some(before) => Arc::new(BinaryExpr::new(before, Operator::And, condition)),
                None => condition,
            });
        }
        Ok(all)
    }

    /// The second rule of every value.
    fn values(&self, schema: &SchemaRef) -> Result<Vec<Arc<AggregateFunctionExpr>>> {
        wanted(self.table, self.values)
            .map(|value| {
                AggregateExprBuilder::new(across_chunks(value.role), vec![column(value.name, schema)?])
                    .schema(Arc::clone(schema))
                    .alias(value.name)
                    .build()
                    .map(Arc::new)
            })
            .collect()
    }
}

fn across_chunks(role: Role) -> Arc<AggregateUDF> {
    match role {
        Role::Count => sum_udaf(),
        Role::Min => min_udaf(),
        Role::Max => max_udaf(),
        Role::Histogram => histogram_sum(),
        Role::Registers => registers_max(),
        Role::Dimension | Role::Time | Role::Chunk => unreachable!("keys are grouped by, not merged"),
    }
}

fn column(name: &str, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(ColumnOf::new_with_schema(name, schema)?))
}

/// Splits sources among threads, about evenly by rows; few rows stay together.
fn shares(mut sources: Vec<Source>) -> Vec<Vec<Source>> {
    let total: u64 = sources.iter().map(Source::rows).sum();
    if total < PARALLEL_ROWS_MIN || sources.len() < 2 {
        return vec![sources];
    }
    sources.sort_by_key(|source| std::cmp::Reverse(source.rows()));
    let mut shares: Vec<(u64, Vec<Source>)> = vec![(0, vec![]); QUERY_THREADS];
    for source in sources {
        let (rows, share) = shares.iter_mut().min_by_key(|(rows, _)| *rows).expect("there are threads");
        *rows += source.rows();
        share.push(source);
    }
    shares.into_iter().map(|(_, share)| share).collect()
}
