// What deploy/grafana/parkwarden.json has to be, by Grafana's own types. A test puts the file behind this one, as the value
// of `dashboard`, so that the compiler sees every word of it as a literal.
import type { AnnotationQuery, Dashboard, DataQuery, Panel, RowPanel } from "@grafana/schema";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { FieldConfig as TableField, Options as Table } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type { Options as Text } from "@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen";
import type { FieldConfig as TimeSeriesField, Options as TimeSeries } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON has the values of enumerations, not their names.
type Json<T> = T extends string ? `${T}` : T extends (infer E)[] ? Json<E>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

// The schema leaves a query to its data source.
type Query = DataQuery & {
  expr: string;
  editorMode?: "code" | "builder";
  format?: "table" | "time_series" | "heatmap";
  instant?: boolean;
  range?: boolean;
  legendFormat?: string;
};

// The schema leaves options and a field's own settings to the kind of panel.
type Kind<Type extends string, Options, Field = object> = Omit<Panel, "type" | "options" | "targets" | "fieldConfig"> & {
  type: Type;
  options: Options;
  targets?: Query[];
  fieldConfig: {
    defaults: NonNullable<Panel["fieldConfig"]>["defaults"] & { custom?: Partial<Field> };
    overrides: NonNullable<Panel["fieldConfig"]>["overrides"];
  };
};

type Checked = Omit<Dashboard, "panels" | "annotations"> & {
  panels: (RowPanel | Kind<"stat", Stat> | Kind<"table", Table, TableField> | Kind<"text", Text> | Kind<"timeseries", TimeSeries, TimeSeriesField>)[];
  annotations: { list: (Omit<AnnotationQuery, "target"> & { target: Query; titleFormat?: string })[] };
};

export const dashboard: Json<Checked> =
