import type { Agent, Task } from '@faultline/sim';
import { IommufdError } from '../errno.ts';
import type { Iommufd } from '../object/iommufd.ts';
import type { Process } from '../process.ts';
import type { FileTable } from './file-table.ts';
import type { StructLayout, StructView } from './struct-layout.ts';
import type { UserMemory } from './user-memory.ts';

/** One ioctl under way. */
export interface IoctlCall {
  readonly agent: Agent;
  readonly iommufd: Iommufd;
  readonly process: Process;
  readonly files: FileTable;
  readonly memory: UserMemory;
  /** Copies the struct back: min(user's size, kernel's size) bytes. What is not called has no out-fields, as in the kernel. */
  respond(): void;
}

/** What one ioctl does. @throws Error with an errno as its `code` */
export type IoctlHandler<Field extends string> = (call: IoctlCall, command: StructView<Field>) => Task<void>;

/** One row of the table of ioctls. */
export interface IoctlEntry {
  readonly nr: number;
  /** Without IOMMU_. */
  readonly name: string;
  readonly layout: StructLayout;
  /** Least size that a user may pass: the end of the field that is the last of the first version. */
  readonly minSize: number;
  /** The kernel that has it first, of those that are modelled. */
  readonly since: '6.12' | '7.3';
  readonly execute: IoctlHandler<string>;
}

/** A row, with its field names checked against its layout. */
export function ioctlEntry<Field extends string>(row: {
  readonly nr: number;
  readonly name: string;
  readonly layout: StructLayout<Field>;
  readonly last: NoInfer<Field>;
  readonly since?: '6.12' | '7.3';
  readonly execute: IoctlHandler<Field>;
}): IoctlEntry {
  const { nr, name, layout, last, since = '6.12' } = row;
  const { offset, bytes } = layout.fields[last];
  const execute = row.execute as IoctlHandler<string>;
  return { nr, name, layout: layout as StructLayout, minSize: offset + bytes, since, execute };
}

/** Refuses what a reserved field holds. @throws IommufdError EOPNOTSUPP */
export function checkReserved<Field extends string>(command: StructView<Field>, ...fields: Field[]): void {
  for (const field of fields)
    if (!command.isZero(field))
      throw new IommufdError('EOPNOTSUPP', `${command.layout.name}.${field}: reserved, and not zero`);
}
